# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sessions that are lost, and what is there when they come back."""

import os
import random

import iscsi_case

EXACT = ("-m", 1, "--request-size", "256k")
IMPATIENT = ("--timeout", 2, "--give-up", 6)
LAST = 400  # more calls than any of these copies makes


class EachCall(iscsi_case.Case):
    """The connection is cut at the n-th call of a small copy, for every n."""

    SIZE = 2 * iscsi_case.MIB

    def each(self, copy, fault):
        for n in range(1, LAST):
            with self.subTest(n):
                server, result = copy(f"any {n}: {fault}", status=None)
                if not any(entry["fault"] for entry in server.log()):
                    self.assertEqual(result.status, 0, str(result))
                    return
                self.judge(server, result)
        self.fail("it does not end")

    def judge(self, server, result):
        """Bytes are right; or, while it was opened, nothing was touched."""
        if result.status == 0:
            self.one_isid(server)
            return
        self.assertEqual(result.status, 2, str(result))
        self.assertEqual([e for e in server.log("WRITE") if e["executed"]], [])

    def test_to_a_lun_before(self):
        self.each(self.to_lun, "cut before")

    def test_to_a_lun_after(self):
        self.each(self.to_lun, "cut after")

    def test_from_a_lun_before(self):
        self.each(self.from_lun, "cut before")

    def test_from_a_lun_after(self):
        self.each(self.from_lun, "cut after")


class Cut(iscsi_case.Case):
    def test_half_a_reply(self):
        for n in (1, 4):
            with self.subTest(n):
                server, _ = self.from_lun(f"READ {n}: half")
                self.assertEqual(self.one_isid(server), 2)
        server, _ = self.to_lun("WRITE 9: half", "SYNC 1: half")
        self.assertEqual(self.one_isid(server), 3)

    def test_cut_while_data_is_on_its_way(self):
        self.to_lun("WRITE 3: cut early", "WRITE 9: cut early", "WRITE 17: close early")

    def test_closed_properly(self):
        server, _ = self.to_lun("WRITE 9: close", "SYNC 1: close after")
        self.assertEqual(self.one_isid(server), 3)

    def test_same_isid_each_time(self):
        rules = [f"WRITE {n}: cut" for n in range(3, 30, 4)]
        server, _ = self.to_lun(*rules, options=EXACT)
        self.assertEqual(self.one_isid(server), len(rules) + 1)

    def test_each_lane_keeps_its_isid(self):
        server, _ = self.to_lun("WRITE 6: cut", "WRITE 11: cut", "WRITE 15: cut",
                                options=("--lanes", 2, *EXACT))
        logins = server.log("LOGIN")
        self.assertEqual(len({entry["isid"] for entry in logins}), 2)
        self.assertGreater(len(logins), 3)

    def test_cut_in_a_login(self):
        self.to_lun("WRITE 9: cut", "LOGIN 2-4: cut", "LOGIN 5: garbage", "LOGIN 6: close")

    def test_cut_while_it_looks_again(self):
        for call in ("READY", "INQUIRY", "CAPACITY", "MODE_SENSE"):
            with self.subTest(call):
                self.to_lun("WRITE 9: cut", f"{call} 2-9: cut where session=2")

    def test_garbage(self):
        self.to_lun("WRITE 9: garbage")
        self.from_lun("READ 3: garbage")

    def test_target_asks_for_a_logout(self):
        self.to_lun("WRITE 9: ask_logout")
        self.from_lun("READ 3: ask_logout")

    def test_target_pings(self):
        server, _ = self.to_lun("WRITE: ping")
        self.assertGreaterEqual(len(server.log("PONG")), 12)
        self.assertEqual(self.one_isid(server), 1)

    def test_header_digest(self):
        server, _ = self.to_lun("WRITE 9: cut", query="header-digest=crc32c")
        self.assertEqual(self.one_isid(server), 2)

    def test_window_of_one(self):
        self.to_lun("--window", 1, "WRITE 9: cut")

    def test_late_write_does_not_land(self):
        """The blank head of the first session is still on its way when the second one begins."""
        server, _ = self.to_lun("WRITE 2: delay 60000", "WRITE 3: cut")
        late = [e for e in server.log("WRITE") if e["n"] == 2]
        self.assertEqual([(e["status"], e["executed"]) for e in late], [("reinstated", False)])

    def test_cut_with_power_loss_meanwhile(self):
        """The cache ends with the session, whether or not the target says so."""
        for loss in ("power_loss", "power_loss quiet"):
            for rules in ((f"LOGIN 2: {loss}", "WRITE 9: cut"), (f"LOGIN 2: {loss}", "SYNC 1: cut")):
                with self.subTest(rules):
                    server, _ = self.to_lun(*rules, options=EXACT)
                    self.assertEqual(server.command("cached 0"), 0)


class Login(iscsi_case.Case):
    def test_refused_for_a_while(self):
        # Target not found, as from a daemon that is being configured; service unavailable.
        for status in ("2/3", "3/1", "3/2", "2/2"):
            with self.subTest(status):
                self.to_lun("WRITE 9: cut", f"LOGIN 2-4: refuse {status}")

    def test_connection_refused_for_a_while(self):
        self.to_lun("WRITE 9: cut", "connect 2-5: refuse")

    def test_lun_is_not_there_yet(self):
        # READY 1 and 2 opened it: the first takes the unit attention that follows a login.
        self.to_lun("WRITE 9: cut", "LOGIN 2: set there=0", "READY 5: set there=1")

    def test_not_ready_yet(self):
        self.to_lun("WRITE 9: cut", "READY 2-5: sense 2/04/01 where session=2")

    def test_refused_for_ever(self):
        _, result = self.to_lun("WRITE 9: cut", "LOGIN 2-: refuse 3/1", options=IMPATIENT, status=3)
        self.says(result, "given up")

    def test_first_login_is_refused(self):
        server, _ = self.to_lun("LOGIN: refuse 2/2", status=2)
        self.assertEqual(server.log("WRITE"), [])


class Swapped(iscsi_case.Case):
    """At the reconnect something else is there."""

    def refuses(self, properties, *words):
        server, result = self.to_lun("WRITE 9: cut", f"LOGIN 2: set {properties}", options=EXACT,
                                     status=3)
        for word in words:
            self.says(result, word)
        # Nothing was written on it.
        self.assertEqual([e for e in server.log("WRITE") if e["session"] != 1], [])

    def test_another_serial_number(self):
        self.refuses("serial=ANOTHER", "ANOTHER", "SCRIPT0000")

    def test_another_designator(self):
        self.refuses("naa=6001405deadbeef0", "6001405deadbeef0", "6000000000000000")

    def test_other_blocks(self):
        self.refuses("block-size=4096", "4096", "512")

    def test_shrunk(self):
        self.refuses("blocks=4096", "smaller|2 MiB|2097152|4096")

    def test_write_protected(self):
        self.refuses("wp=1", "write-protected")

    def test_grown(self):
        self.to_lun("WRITE 9: cut", "LOGIN 2: set blocks=65536")

    def test_source(self):
        _, result = self.from_lun("READ 3: cut", "LOGIN 2: set serial=ANOTHER", status=3)
        self.says(result, "ANOTHER")

    def test_cache_came_and_went(self):
        self.to_lun("--lun", "0 wce=0", "WRITE 9: cut", "LOGIN 2: set wce=1",
                    "SYNC 1: power_loss", options=EXACT)
        self.to_lun("WRITE 9: cut", "LOGIN 2: set wce=0", options=EXACT)


class Portals(iscsi_case.Case):
    TWO = ("--portals", 2)

    def moved(self, server):
        """Before its first WRITE at the second portal there was a LOGICAL UNIT RESET."""
        second = [e for e in server.log("WRITE", "TASK_MANAGEMENT") if e["portal"] == 2]
        self.assertEqual((second[0]["call"], second[0].get("function"), second[0]["status"]),
                         ("TASK_MANAGEMENT", "LOGICAL UNIT RESET", 0))

    def test_standby(self):
        for sense in ("2/04/0b", "2/04/0c"):
            with self.subTest(sense):
                server, _ = self.to_lun(*self.TWO, f"WRITE 9-: sense {sense} where portal=1",
                                        ports=True)
                self.moved(server)

    def test_portal_gone(self):
        server, _ = self.to_lun(*self.TWO, "WRITE 9: cut", "LOGIN 2-: cut where portal=1",
                                ports=True)
        self.moved(server)

    def test_late_write_in_another_group(self):
        """No reinstatement ends it there: the reset does."""
        server, _ = self.to_lun(*self.TWO, "--groups", "WRITE 2: delay 60000", "WRITE 3: cut",
                                "LOGIN 2-: cut where portal=1", ports=True)
        self.moved(server)
        late = [e for e in server.log("WRITE") if e["n"] == 2]
        self.assertEqual([e["executed"] for e in late], [False])

    def test_reset_is_refused(self):
        self.to_lun(*self.TWO, "WRITE 9: cut", "LOGIN 2-: cut where portal=1",
                    "TASK_MANAGEMENT 1-2: response 255", ports=True)
        _, result = self.to_lun(*self.TWO, "WRITE 9: cut", "LOGIN 2-: cut where portal=1",
                                "TASK_MANAGEMENT: response 255", ports=True, options=IMPATIENT,
                                status=3)
        self.says(result, "(?i)reset")

    def test_two_lanes(self):
        server, _ = self.to_lun(*self.TWO, "WRITE 9-: sense 2/04/0b where portal=1", ports=True,
                                options=("--lanes", 2, *EXACT))
        self.moved(server)

    def test_reset_by_another_lane(self):
        """One lane moves to another portal; its reset aborts a WRITE of the lane that stays, which is
        told of it only with TAS, and has nothing else to send."""
        for tas in (1, 0):
            with self.subTest(tas=tas):
                # The one that stays is the first; the first four WRITEs blank the head.
                kept = "WRITE: until never 1 where nexus=1 nth=5"
                server, _ = self.to_lun(
                    *self.TWO, "--lun", f"0 tas={tas}", kept,
                    "WRITE: sense 2/04/0b where nexus=2 nth=2 portal=1", ports=True,
                    options=("--lanes", 2, *EXACT))
                self.assertEqual([e["executed"] for e in server.log("WRITE")
                                  if kept in (e["fault"] or ())], [False])

    def test_reading_needs_no_reset(self):
        self.fresh_image()
        server = self.target("--lun", f"0 size={self.SIZE} image={self.path('image')}", *self.TWO,
                             "READ 3: cut", "LOGIN 2-: cut where portal=1")
        self.copy(*self.PATIENCE, self.url(server, ports=server.command("ports")), "back")
        self.same("image", "back")
        self.assertEqual(server.log("TASK_MANAGEMENT"), [])


class Silence(iscsi_case.Case):
    def test_for_ever(self):
        for rule in ("WRITE 9: mute", "SYNC 1: mute", "WRITE 1: mute"):
            with self.subTest(rule):
                _, result = self.to_lun(rule, options=IMPATIENT, status=3)
                self.says(result, "given up")
        _, result = self.from_lun("READ 3: mute", options=IMPATIENT, status=3)
        self.says(result, "given up")

    def test_of_one_session(self):
        server, _ = self.to_lun("WRITE 9: silence", options=("--timeout", 5))
        self.assertEqual(self.one_isid(server), 2)

    def test_of_one_command(self):
        _, result = self.to_lun("WRITE 9: ignore", options=IMPATIENT, status=3)
        self.says(result, "given up")

    def test_slow_flush_is_waited_for(self):
        # The third ping comes when the timeout is over.
        server, _ = self.to_lun("SYNC 1: until NOP 3 after", options=("--timeout", 5))
        self.assertEqual(self.one_isid(server), 1)
        self.assertTrue(server.log("NOP"))


class Sequences(iscsi_case.Case):
    """Faults in a random order: the bytes are right or it ends with an error, never a hang or crash.
    SCRIPTED_SEED chooses the order; a failure prints it."""

    SIZE = 2 * iscsi_case.MIB
    COUNT = 50  # in each direction
    FAULTS = (
        "cut", "cut after", "cut early", "close", "half", "garbage", "status BUSY",
        "status TASK_SET_FULL", "status TASK_SET_FULL early", "attention 29/00", "attention 29/07",
        "attention 2a/01", "attention 2a/09", "attention 3f/03", "power_loss", "power_loss after",
        "power_loss half", "sense b/00/00", "sense 2/04/01", "sense 3/11/00", "sense 5/24/00",
        "sense 7/27/07", "hold 2", "delay 20", "delay 20 after", "ping", "ask_logout", "window 1",
        "window 30", "reject", "set wce=0", "set wce=1", "short 512",
    )
    FINAL = ("sense 3", "sense 5", "sense 7", "reject", "short")

    def rules(self, chance):
        """Those that must end a copy are rare."""
        rules = []
        for _ in range(chance.randint(1, 8)):
            fault = chance.choice(self.FAULTS)
            if fault.startswith(self.FINAL) and chance.random() < 0.8:
                continue
            call = chance.choice(("READ", "WRITE", "SYNC", "any", "any"))
            rules.append(f"{call} {chance.randint(1, 60 if call == 'any' else 24)}: {fault}")
        if chance.random() < 0.3:
            rules.append(f"LOGIN {chance.randint(2, 4)}: refuse 3/1")
        return rules

    def sequence(self, copy):
        seed = int(os.environ.get("SCRIPTED_SEED") or 1)
        chance = random.Random(seed)
        for number in range(self.COUNT):
            rules = self.rules(chance)
            options = ("-m", chance.choice((1, 4, 16)), "--lanes", chance.choice((1, 1, 2)))
            with self.subTest(seed=seed, number=number, rules=rules, options=options):
                server, result = copy(*rules, options=options, status=None)
                self.assertIn(result.status, (0, 2, 3), str(result))
                if result.status != 0:
                    self.assertRegex(result.err, "lunferry: ")


class SequencesToLun(Sequences):
    def test_sequences(self):
        self.sequence(self.to_lun)


class SequencesFromLun(Sequences):
    def test_sequences(self):
        self.sequence(self.from_lun)

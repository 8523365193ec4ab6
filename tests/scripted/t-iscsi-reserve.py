# SPDX-License-Identifier: LGPL-2.1-or-later
"""Persistent reservations: lunferry copy --reserve."""

import iscsi_case

EXACT = ("-m", 1, "--request-size", "256k")
RESERVE = ("--reserve",)
NOBODY = {"keys": {}, "holder": None, "type": None}
STRANGER = "400000000001"
REGISTER, RESERVE_ACTION, RELEASE, PREEMPT, PREEMPT_AND_ABORT = 0, 1, 2, 4, 5
REGISTER_IGNORING = 6


def action(entry):
    return int(entry["cdb"][2:4], 16) & 0x1F


class Reserve(iscsi_case.Case):
    def actions(self, server):
        return [(action(e), e["status"]) for e in server.log("RESERVE_OUT")]

    def test_taken_and_released(self):
        server, _ = self.to_lun(options=RESERVE)
        self.assertEqual(server.command("reservation 0"), NOBODY)
        calls = [e["call"] for e in server.log("WRITE", "RESERVE_OUT")]
        first, last = calls.index("WRITE"), len(calls) - calls[::-1].index("WRITE")
        # Registered and reserved before the first WRITE, released and unregistered after the last.
        self.assertEqual((first, len(calls) - last), (2, 2))
        done = [kind for kind, status in self.actions(server) if status == "GOOD"]
        self.assertEqual(done[:3], [REGISTER_IGNORING, RESERVE_ACTION, RELEASE])
        self.assertIn(done[3], (REGISTER, REGISTER_IGNORING))

    def test_type(self):
        for types, wanted in (("5,7", 7), ("5", 5)):
            with self.subTest(types):
                server, _ = self.to_lun("--lun", f"0 types={types}", options=RESERVE)
                taken = [e for e in server.log("RESERVE_OUT")
                         if action(e) == RESERVE_ACTION and e["status"] == "GOOD"]
                self.assertEqual([int(e["cdb"][4:6], 16) for e in taken], [wanted])

    def test_not_asked_for(self):
        server, _ = self.to_lun()
        self.assertEqual(server.log("RESERVE_OUT", "RESERVE_IN"), [])

    def test_not_supported(self):
        server, result = self.to_lun("--lun", "0 reservations=0", options=RESERVE, status=2)
        self.says(result, "reserv")
        self.assertEqual(server.log("WRITE"), [])

    def test_lanes(self):
        server, _ = self.to_lun(options=(*RESERVE, "--lanes", 2))
        self.assertEqual(server.command("reservation 0"), NOBODY)
        # Whoever writes has registered before.
        for entry in server.log("WRITE"):
            self.assertEqual(entry["status"], "GOOD")

    def test_foreign_holder_is_named(self):
        self.fresh_image()
        server = self.target()
        server.command("do reserve abcdef 5")
        result = self.copy(*self.PATIENCE, *RESERVE, "image", self.url(server), status=2)
        self.says(result, "0000000000abcdef")
        self.says(result, "iqn.2003-01.org.lunferry:another")
        self.says(result, "--break-reservation")
        self.assertEqual(server.log("WRITE"), [])
        self.assertEqual(server.command("reservation 0"),
                         {"keys": {STRANGER: "0000000000abcdef"}, "holder": STRANGER, "type": 5})

    def test_break(self):
        self.fresh_image()
        server = self.target()
        server.command("do reserve abcdef 5")
        self.copy(*self.PATIENCE, *RESERVE, "--break-reservation", "0xabcdef", "image",
                  self.url(server))
        self.stored(server, "image")
        self.assertEqual(server.command("reservation 0"), NOBODY)

    def test_break_of_another_key(self):
        self.fresh_image()
        server = self.target()
        server.command("do reserve abcdef 5")
        self.copy(*self.PATIENCE, *RESERVE, "--break-reservation", "0x123", "image",
                  self.url(server), status=2)
        self.assertEqual(server.command("reservation 0")["holder"], STRANGER)

    def test_preempted(self):
        for rules in (("WRITE 9: preempt abc",), ("WRITE 9: preempt abc",
                                                  "WRITE 9: attention 2a/03")):
            with self.subTest(rules):
                server, result = self.to_lun(*rules, options=(*RESERVE, *EXACT), status=3)
                self.says(result, "(?i)reservation|preempted|registration")
                # The new holder keeps what it has, and nothing was written under it.
                self.assertEqual(server.command("reservation 0")["keys"],
                                 {STRANGER: "0000000000000abc"})
                self.assertEqual(len(self.writes(server)), 8)

    def test_preempted_while_away(self):
        server, _ = self.to_lun("WRITE 9: cut", "LOGIN 2: preempt abc", options=(*RESERVE, *EXACT),
                                status=3)
        self.assertEqual(len(self.writes(server)), 8)
        self.assertEqual(server.command("reservation 0")["holder"], STRANGER)

    def test_registered_again_before_anything_is_written(self):
        server, _ = self.to_lun("WRITE 9: cut", options=RESERVE)
        second = [e for e in server.log("WRITE", "RESERVE_OUT") if e["session"] == 2]
        self.assertEqual(second[0]["call"], "RESERVE_OUT")
        self.assertEqual(server.command("reservation 0"), NOBODY)

    def test_released_when_it_fails(self):
        server, _ = self.to_lun("WRITE 9: sense 3/0c/00", options=RESERVE, status=3)
        self.assertEqual(server.command("reservation 0"), NOBODY)

    def test_cut_at_each_step(self):
        self.fresh_image()
        for n in range(1, 5):
            for when in ("before", "after"):
                with self.subTest((n, when)):
                    rule = f"RESERVE_OUT {n}: cut {when}"
                    server = self.target(rule)
                    result = self.lunferry("copy", *self.PATIENCE, *RESERVE, "image",
                                           self.url(server), status=None)
                    self.have_fired(server, (rule,), result.status)
                    self.assertIn(result.status, (0, 2), str(result))
                    left = server.command("reservation 0")
                    if left != NOBODY:  # then the user is told under which key
                        self.says(result, next(iter(left["keys"].values())))

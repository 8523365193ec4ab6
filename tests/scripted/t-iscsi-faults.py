# SPDX-License-Identifier: LGPL-2.1-or-later
"""A LUN that answers otherwise than hoped: every line of the table of answers, power lost, a cache that
comes up, things that change. The session stays."""

import iscsi_case

# One chunk at a time, each a WRITE of a granule: counts are exact.
EXACT = ("-m", 1, "--request-size", "256k")


class Repeated(iscsi_case.Case):
    """Answers after which a copy goes on."""

    ANSWERS = (
        "status BUSY", "status TASK_SET_FULL", "status TASK_ABORTED",
        "sense b/00/00", "sense b/0e/00", "sense b/47/00", "sense b/4b/00",
        "sense 2/04/00", "sense 2/04/01", "sense 2/04/0a", "sense 2/04/09",
        "attention 29/00", "attention 29/01", "attention 29/02", "attention 29/03",
        "attention 29/04", "attention 29/07", "attention 2a/01", "attention 2a/03",
        "attention 2a/04", "attention 2a/05", "attention 2a/06", "attention 2a/09",
        "attention 28/00", "attention 2f/00", "attention 3f/03", "attention 3f/0e",
        "attention 38/07", "attention 5d/00",
    )

    def test_write(self):
        for answer in self.ANSWERS:
            with self.subTest(answer):
                self.to_lun(f"WRITE 3: {answer}", f"WRITE 9: {answer}")

    def test_flush(self):
        for answer in self.ANSWERS:
            with self.subTest(answer):
                self.to_lun(f"SYNC 1: {answer}", options=EXACT)

    def test_read(self):
        for answer in self.ANSWERS:
            with self.subTest(answer):
                server, _ = self.from_lun(f"READ 2: {answer}", f"READ 5: {answer}")
                self.assertEqual(len([e for e in server.log("READ") if not e["executed"]]), 2)

    def test_write_without_a_cache(self):
        for answer in self.ANSWERS:
            with self.subTest(answer):
                self.to_lun("--lun", "0 wce=0", f"WRITE 3: {answer}", f"WRITE 9: {answer}")

    def test_many_in_a_row(self):
        self.to_lun("WRITE 3-9: status BUSY", "SYNC 1-3: status TASK_SET_FULL")
        self.to_lun("WRITE 5-9: attention 29/07", "WRITE 5-9: attention 2a/06")

    def test_early_refusal_with_data_on_its_way(self):
        self.to_lun("--parameter", "InitialR2T=No", "WRITE 3-12: status TASK_SET_FULL early")
        self.to_lun("--parameter", "InitialR2T=No", "WRITE 3-12: status BUSY early",
                    options=("-m", 16))

    def test_recovered_error_is_success(self):
        self.to_lun("WRITE 5: sense 1/17/01 after")
        self.from_lun("READ 2: sense 1/17/01 after")

    def test_soft_threshold_is_told_once(self):
        self.fresh_image()
        server = self.target("WRITE 5: attention 38/07", "WRITE 8: attention 38/07")
        result = self.lunferry("copy", "image", self.url(server))
        self.assertEqual(result.err.count("soft threshold"), 1, str(result))
        self.stored(server, "image")


class Final(iscsi_case.Case):
    """Answers that end it, each with a sentence that names it."""

    ANSWERS = (
        ("sense 3/11/00 lba=3000", "MEDIUM ERROR 3/11/00"),
        ("sense 3/0c/00", "MEDIUM ERROR 3/0c/00"),
        ("sense 4/44/00", "HARDWARE ERROR 4/44/00"),
        ("sense 5/21/00", "ILLEGAL REQUEST 5/21/00"),
        ("sense 5/24/00 descriptors", "ILLEGAL REQUEST 5/24/00"),
        ("sense 7/27/00", "DATA PROTECT 7/27/00"),
        ("sense 7/27/07", "DATA PROTECT 7/27/07"),
        ("sense 2/04/03", "NOT READY 2/04/03"),
        ("sense 2/04/0b", "NOT READY 2/04/0b"),
        ("sense 2/04/0c", "NOT READY 2/04/0c"),
        ("sense 2/3a/00", "NOT READY 2/3a/00"),
        ("sense 3/0c/00 deferred", "deferred.*MEDIUM ERROR 3/0c/00"),
        ("status RESERVATION_CONFLICT", "RESERVATION CONFLICT"),
        ("reject", "reject"),
    )

    def test_write(self):
        for answer, words in self.ANSWERS:
            with self.subTest(answer):
                server, result = self.to_lun(f"WRITE 7-: {answer}", options=EXACT, status=3)
                # The seventh: four have blanked the head, two more are written.
                self.says(result, "1.5|1572864")
                self.says(result, words)
                # What failed has no head.
                server.command(f"save 0 {self.path('stable')}")
                with open(self.path("stable"), "rb") as file:
                    self.assertEqual(file.read(iscsi_case.HEAD), bytes(iscsi_case.HEAD))

    def test_flush(self):
        for answer, words in self.ANSWERS:
            with self.subTest(answer):
                _, result = self.to_lun(f"SYNC: {answer}", status=3)
                self.says(result, words)

    def test_read(self):
        for answer, words in self.ANSWERS:
            with self.subTest(answer):
                _, result = self.from_lun(f"READ 4-: {answer}", options=EXACT, status=3)
                self.says(result, words)

    def test_before_anything_is_touched(self):
        for call in ("READY", "CAPACITY"):
            with self.subTest(call):
                server, result = self.to_lun(f"{call}: sense 2/04/03", status=2)
                self.says(result, "NOT READY 2/04/03")
                self.assertEqual(server.log("WRITE"), [])

    def test_first_write(self):
        # The head may be blank now.
        self.to_lun("WRITE 1: sense 7/27/00", status=3)

    def test_write_protected(self):
        server, result = self.to_lun("--lun", "0 wp=1", status=2)
        self.says(result, "write-protected")
        self.assertEqual(server.log("WRITE"), [])

    def test_short_data(self):
        self.from_lun("READ 4-: short 512", status=3)

    def test_no_sense(self):
        _, result = self.to_lun("WRITE 7-: status CHECK_CONDITION", status=3)
        self.says(result, "without sense data")


class PowerLoss(iscsi_case.Case):
    """What was not flushed is gone, and is written again: that, and no more."""

    def check(self, *arguments, options=EXACT, spare=False):
        """spare: what was in flight may be repeated needlessly."""
        server, _ = self.to_lun(*arguments, options=options)
        lost, repeated = self.lost_and_repeated(server)
        self.assertEqual(repeated & lost if spare else repeated, lost)
        self.assertEqual(server.command("cached 0"), 0)
        return server, lost

    def test_at_each_write(self):
        sizes = []
        # Four to blank the head, eight, four for the head.
        for n in range(1, 17):
            with self.subTest(n):
                sizes.append(len(self.check(f"WRITE {n}: power_loss")[1]))
        # At the fifth nothing behind the head was in the cache, at each one after it one more.
        self.assertEqual(sizes[4:12], list(range(8)))

    def test_after_each_write(self):
        for n in range(1, 17):
            with self.subTest(n):
                server, _ = self.to_lun(f"WRITE {n}: power_loss after", options=EXACT)
                self.assertEqual(server.command("cached 0"), 0)

    def test_in_the_flush(self):
        _, lost = self.check("SYNC 1: power_loss")
        self.assertEqual(len(lost), 8)

    def test_in_the_middle_of_the_flush(self):
        self.check("SYNC 1: power_loss half")

    def test_after_the_flush_was_executed(self):
        server, _ = self.to_lun("SYNC 1: power_loss after", options=EXACT)
        self.assertEqual(self.lost_and_repeated(server)[1], set())

    def test_again_and_again(self):
        self.check("WRITE 7: power_loss", "WRITE 13: power_loss", "SYNC 1: power_loss",
                   "SYNC 2: power_loss half", "WRITE 20: power_loss")

    def test_with_many_in_flight(self):
        for n in (5, 8, 11, 13):
            with self.subTest(n):
                self.check(f"WRITE {n}: power_loss", options=("-m", 16), spare=True)

    def test_out_of_order(self):
        self.check("WRITE 5-30: hold 3", "WRITE 10: power_loss", options=("-m", 16),
                   spare=True)

    def test_without_fua(self):
        for n in range(1, 17, 3):
            with self.subTest(n):
                self.check("--lun", "0 fua=0", f"WRITE {n}: power_loss")

    def test_two_lanes(self):
        """Each hears of it by its own next command, at another time. The first lane's data waits for the
        power loss, so that the second one gets to write."""
        for nth in (1, 2, 3):
            with self.subTest(nth):
                rule = f"WRITE: power_loss where nexus=2 nth={nth}"
                server, _ = self.check("WRITE: until never 1 where nexus=1 nth=5", rule, options=(
                    "--lanes", 2, "-m", 1, "--request-size", "256k"))
                log = server.log()
                after = next(i for i, e in enumerate(log) if e["fault"] == [rule])
                told = {e["isid"] for e in log[after:] if e.get("status") == "6/29/00"}
                self.assertEqual(len(told), 2)

    def test_two_lanes_in_the_flush(self):
        """In that of the second lane, and in that of the first one, which comes behind it."""
        for n, event in ((1, "never 1"), (2, "SYNC 1")):
            with self.subTest(n):
                self.check(f"WRITE: until {event} where nexus=1 nth=5", f"SYNC {n}: power_loss",
                           options=("--lanes", 2, *EXACT))

    def test_power_loss_and_cut(self):
        for n in range(1, 17, 2):
            with self.subTest(n):
                self.check(f"WRITE {n}: power_loss", f"WRITE {n}: cut")

    def test_without_a_cache_nothing_is_repeated(self):
        server, _ = self.to_lun("--lun", "0 wce=0", "WRITE 9: power_loss", options=EXACT)
        self.assertEqual(self.lost_and_repeated(server)[1], set())


class Changes(iscsi_case.Case):
    def test_cache_turned_on(self):
        """What is written after the cache is there is flushed before it counts."""
        server, _ = self.to_lun("--lun", "0 wce=0", "WRITE 8: set wce=1",
                                "WRITE 8: attention 2a/01", "SYNC 1: power_loss", options=EXACT)
        self.assertTrue(server.log("SYNC"))
        self.assertEqual(server.command("cached 0"), 0)

    def test_cache_turned_off(self):
        server, _ = self.to_lun("WRITE 8: set wce=0", "WRITE 8: attention 2a/01", options=EXACT)
        self.assertEqual(server.command("cached 0"), 0)

    def test_grown(self):
        self.to_lun("WRITE 8: resize 32768", options=EXACT)

    def test_smaller_but_large_enough(self):
        self.to_lun("WRITE 8: resize 6144", options=EXACT)

    def test_shrunk(self):
        _, result = self.to_lun("WRITE 8: resize 4096", options=EXACT, status=3)
        self.says(result, "smaller|2 MiB|2097152")

    def test_shrunk_source(self):
        _, result = self.from_lun("READ 5: resize 4096", status=3)
        self.says(result, "smaller|2 MiB|2097152")

    def test_another_lun(self):
        """Told while the session is up: the inquiry data has changed."""
        _, result = self.to_lun("WRITE 8: set serial=ANOTHER", "WRITE 8: attention 3f/03",
                                options=EXACT, status=3)
        self.says(result, "ANOTHER")
        self.says(result, "SCRIPT0000")

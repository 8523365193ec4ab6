# SPDX-License-Identifier: LGPL-2.1-or-later
"""Only what has to move is moved: thin LUNs as sources and as targets, and what is left when a target
does not do what its pages promise. Whatever that is, the bytes are right."""

import iscsi_case

KIB, MIB = 1 << 10, 1 << 20
SIZE = 8 * MIB
# Where the image has data, in bytes: in the head, in the middle, at the end.
DATA = [(0, 64 * KIB), (1536 * KIB, 512 * KIB), (5 * MIB, 64 * KIB), (SIZE - 64 * KIB, 64 * KIB)]
REFUSALS = ("5/20/00", "5/24/00", "5/26/00")
# One request after the other, so that a test knows which one is the next.
SINGLE = "-m", 1


def unmaps(entry):
    """A WRITE SAME with UNMAP."""
    return bool(bytes.fromhex(entry["cdb"])[1] & 0x08)


def covers(entry):
    return entry["lba"] * 512, (entry["lba"] + entry["blocks"]) * 512


class Case(iscsi_case.Case):
    def holed_image(self, name="image"):
        """SIZE bytes, of which DATA are no zeros and the others no data."""
        self.image("random", MIB)
        source = self.path("random").read_bytes()
        with open(self.path(name), "wb") as file:
            file.truncate(SIZE)
            for offset, length in DATA:
                file.seek(offset)
                file.write(source[:length])

    def info(self, server):
        return self.lunferry("info", self.url(server)).out

    def touched(self, entries, least):
        """The bytes behind `least` that these commands cover."""
        return sum(max(0, end - max(start, least)) for start, end in map(covers, entries))


# ---- Sources --------------------------------------------------------------------------------------

class Source(Case):
    def back(self, properties="", *rules, options=(), quiet=True):
        """The image on a thin LUN, and from there to a file."""
        self.holed_image()
        server = self.target("--lun", f"0 size={SIZE} image={self.path('image')} thin=1 {properties}",
                             *rules)
        server.command(f"save 0 {self.path('before')}")
        arguments = ("copy", "--overwrite", *self.PATIENCE, *options, self.url(server), "back")
        result = self.lunferry(*arguments, *(("-q",) if quiet else ()))
        self.same("before", "back")
        self.have_fired(server, rules, 0)
        return server, result

    def reads_less(self, server):
        """Nothing was read in the holes; the head is looked at in any case."""
        reads = server.log("READ")
        for start, end in map(covers, reads):
            self.assertTrue(end <= MIB or any(offset <= start and end <= offset + length
                                              for offset, length in DATA), (start, end))
        self.assertEqual(self.touched(reads, MIB), sum(length for _, length in DATA[1:]))

    def reads_all(self, server):
        self.assertGreaterEqual(self.touched(server.log("READ"), 0), SIZE)

    def test_only_what_is_mapped_is_read(self):
        for properties in ("", "wce=0", "block-size=4096 granule=16", "lbprz=5", "page-b2=0",
                           "max-status=1", "odd=anchored"):
            with self.at(properties=properties):
                server, _ = self.back(properties)
                if "block-size" not in properties:
                    self.reads_less(server)

    def test_sparse_as_it_was(self):
        self.back()
        self.assertLessEqual(self.path("back").stat().st_blocks * 512, SIZE // 2)

    def test_what_is_not_certainly_zeros_is_read(self):
        """What is not mapped reads as something else; the LUN's word of it counts, not READ CAPACITY's,
        where there is both."""
        for properties in ("lbprz=2", "lbprz=0", "lbprz=0 capacity-lbprz=1",
                           "page-b2=0 capacity-lbprz=0 lbprz=0", "odd=unknown"):
            with self.at(properties=properties):
                server, _ = self.back(properties)
                self.reads_all(server)

    def test_odd_answers(self):
        for odd in ("none", "empty", "gap", "ahead", "elsewhere", "backwards", "overlap", "twice"):
            for more in ("", "max-status=2"):
                with self.at(odd=odd, more=more):
                    self.back(f"odd={odd} {more}")

    def test_broken_answers(self):
        for rule in ("short 8", "short 24", "short 1000", "half", "cut", "sense 2/04/01",
                     "status BUSY", "sense 6/29/00", "sense 1/5d/00"):
            for n in (1, 2):
                with self.at(rule=rule, n=n):
                    self.back("max-status=2", f"LBA_STATUS {n}: {rule}")

    def test_refused(self):
        for sense in REFUSALS + ("5/2c/00",):
            for n in (1, 2):
                with self.at(sense=sense, n=n):
                    server, _ = self.back("max-status=1", f"LBA_STATUS {n}-: sense {sense}")
                    if n == 1:
                        self.reads_all(server)
                    self.assertEqual(len(server.log("LBA_STATUS")), n)

    def test_what_it_cannot_look_up(self):
        """A disk that has lost its own tables may still have the data: reading it will tell."""
        for sense in ("3/11/00", "4/44/00", "7/20/00", "e/1d/00"):
            for n in (1, 2):
                with self.at(sense=sense, n=n):
                    self.back("max-status=1", f"LBA_STATUS {n}-: sense {sense}")

    def test_target_that_drops_the_connection(self):
        server, result = self.back("", "LBA_STATUS: cut", quiet=False)
        self.says(result, "lost at GET LBA STATUS, twice")
        self.assertEqual(len(server.log("LBA_STATUS")), 2)
        self.reads_all(server)

    def test_map(self):
        self.holed_image()
        server = self.target("--lun", f"0 size={SIZE} image={self.path('image')} thin=1")
        out = self.lunferry("map", "-f", "raw", self.url(server)).out
        found = [tuple(map(int, line.split()[:2])) for line in out.splitlines()
                 if line.endswith(" data")]
        self.assertEqual(found, DATA)
        self.assertEqual(server.log("READ"), [])


# ---- Targets --------------------------------------------------------------------------------------

class Target(Case):
    def onto(self, properties, *rules, old=True, options=(), quiet=True, status=0):
        """Copies the image to a LUN that is 2 MiB longer. old: which is full of other data."""
        self.holed_image()
        self.path("blank").write_bytes(bytes(SIZE + 2 * MIB))
        words = f"0 size={SIZE + 2 * MIB} {properties}"
        if old:
            self.image("old", SIZE + 2 * MIB)
            words += f" image={self.path('old')}"
        server = self.target("--lun", words, *rules)
        result = self.lunferry("copy", *self.PATIENCE, *(("--overwrite",) if old else ()), *options,
                               "image", self.url(server), *(("-q",) if quiet else ()),
                               status=status)
        if status == 0:
            self.stored(server, "image")
            self.head_is_last(server)
            self.assertEqual(server.command("cached 0"), 0)
        self.have_fired(server, rules, status)
        return server, result

    def tail(self):
        return self.path("stable").read_bytes()[SIZE:]

    def test_nothing_for_holes(self):
        """What is not mapped is zero as it is."""
        server, _ = self.onto("thin=1", old=False)
        written = self.touched(server.log("WRITE"), MIB)
        self.assertEqual(written, sum(length for _, length in DATA[1:]))
        self.assertEqual(self.touched(server.log("WRITE_SAME"), MIB), 0)

    def test_stale_data_does_not_shine_through(self):
        for properties, with_unmap, without in (
                ("thin=1", True, True), ("thin=1 wce=0", True, True), ("thin=1 fua=0", True, True),
                ("thin=1 granule=8", True, True), ("thin=1 granule=1024 alignment=64", True, True),
                ("thin=1 granule=48 alignment=16", True, True),
                ("thin=1 granule=65536", True, True),  # larger than the LUN
                ("thin=1 max-same=64", True, True),  # less than a unit
                ("thin=1 max-same=999", True, True), ("thin=1 lbpu=0", True, True),
                ("thin=1 block-size=4096 granule=16", True, True),
                ("thin=1 page-b2=0 capacity-lbprz=1", False, True),
                ("thin=1 lbpws=0", False, True), ("thin=1 lbprz=2", False, True),
                ("thin=1 lbprz=0", False, True), ("thin=1 lbpws=0 codes=0", False, False),
                ("write-same=1", False, True), ("write-same=1 max-same=100", False, True),
                ("codes=0 write-same=1 max-same=100", False, True), ("write-same=0", False, False),
                ("codes=0 write-same=1", False, False)):
            with self.at(properties=properties):
                server, _ = self.onto(properties)
                same = server.log("WRITE_SAME")
                self.assertEqual({entry["status"] for entry in same}, {"GOOD"} if same else set())
                self.assertEqual(any(map(unmaps, same)), with_unmap)
                self.assertEqual(any(not unmaps(entry) for entry in same), without)
                self.assertEqual(server.log("UNMAP"), [])
                self.assertEqual(self.tail(), self.path("old").read_bytes()[SIZE:])

    def test_zeros_are_unmapped(self):
        server, _ = self.onto("thin=1")
        out = self.lunferry("map", "-f", "raw", self.url(server)).out
        data = [tuple(map(int, line.split()[:2])) for line in out.splitlines()
                if line.endswith(" data")]
        # The head has been written, zeros and all.
        self.assertEqual([each for each in data if MIB <= each[0] < SIZE - MIB], DATA[1:3])

    def test_durable(self):
        """The head is blank on stable storage before anything is written elsewhere."""
        server, _ = self.onto("thin=1", options=SINGLE)
        calls = [e["call"] for e in server.log("WRITE", "WRITE_SAME", "SYNC")]
        self.assertEqual(calls[:2], ["WRITE_SAME", "SYNC"])
        server, _ = self.onto("thin=1 wce=0")
        self.assertEqual(server.log("SYNC"), [])

    def test_power_loss(self):
        for rule in ("WRITE_SAME 1: power_loss", "WRITE_SAME 1: power_loss after",
                     "SYNC 1: power_loss", "WRITE_SAME 3: power_loss after",
                     "SYNC 2: power_loss", "WRITE_SAME 2: cut after", "WRITE_SAME 1: cut",
                     "WRITE_SAME 2: status BUSY", "WRITE_SAME 2: half"):
            with self.at(rule=rule):
                self.onto("thin=1", rule, options=SINGLE)

    def test_refused(self):
        """The head's is the first, and without UNMAP."""
        for sense in REFUSALS:
            with self.at(sense=sense):
                server, _ = self.onto("thin=1", f"WRITE_SAME: sense {sense}", options=SINGLE)
                self.assertEqual(len(server.log("WRITE_SAME")), 1)
                server, _ = self.onto("thin=1", f"WRITE_SAME 2: sense {sense}", options=SINGLE)
                self.assertEqual([unmaps(e) for e in server.log("WRITE_SAME")][:3],
                                 [False, True, False])
                self.assertFalse(any(map(unmaps, server.log("WRITE_SAME")[2:])))
                self.onto("thin=1", f"WRITE_SAME: sense {sense}", options=("--lanes", 2))

    def test_rejected(self):
        server, _ = self.onto("thin=1", "WRITE_SAME: reject 5", options=SINGLE)
        self.assertEqual(len(server.log("WRITE_SAME")), 1)

    def test_target_that_drops_the_connection(self):
        for how in ("cut", "close"):
            with self.at(how=how):
                server, result = self.onto("thin=1", f"WRITE_SAME: {how}", options=SINGLE,
                                           quiet=False)
                self.says(result, "lost at WRITE SAME, twice")
                self.assertEqual(len(server.log("WRITE_SAME")), 2)
                self.assertEqual(self.one_isid(server), 3)
                server, result = self.onto("thin=1", f"WRITE_SAME 2-3: {how}", options=SINGLE,
                                           quiet=False)
                self.says(result, "lost at WRITE SAME with UNMAP, twice")
                self.assertEqual([unmaps(e) for e in server.log("WRITE_SAME")][:4],
                                 [False, True, True, False])
                self.assertEqual(self.one_isid(server), 3)

    def test_pool_is_full(self):
        _, result = self.onto("thin=1", "WRITE_SAME 2: sense 7/27/07", status=3)
        self.says(result, "27/07")

    def test_residual(self):
        """One that takes no block has not done what was asked."""
        server, _ = self.onto("thin=1", "WRITE_SAME 2: status GOOD", options=SINGLE)
        self.assertFalse(any(map(unmaps, server.log("WRITE_SAME")[2:])))

    def test_discard(self):
        for properties, call in (("thin=1", "UNMAP"), ("thin=1 wce=0", "UNMAP"),
                                 ("thin=1 granule=1024 alignment=64", "UNMAP"),
                                 ("thin=1 max-unmap=1000", "UNMAP"), ("thin=1 lbprz=2", "UNMAP"),
                                 ("thin=1 lbprz=0", "UNMAP"), ("thin=1 lbpu=0", "WRITE_SAME"),
                                 ("thin=1 max-unmap=0", "WRITE_SAME"),
                                 ("thin=1 max-descriptors=0", "WRITE_SAME")):
            with self.at(properties=properties):
                server, _ = self.onto(properties, options=("--discard",))
                entries = [e for e in server.log(call) if call == "UNMAP" or unmaps(e)]
                self.assertTrue(entries)
                self.assertEqual({e["status"] for e in entries}, {"GOOD"})
                if call == "UNMAP" and "1000" in properties:
                    self.assertLessEqual(max(e["blocks"] for e in entries), 1000)
                if "alignment" not in properties:
                    self.assertNotIn(self.path("old").read_bytes()[-4096:], self.tail())

    def test_discard_refused(self):
        for rule in [f"sense {sense}" for sense in REFUSALS] + ["cut"]:
            for lbpws in (0, 1):
                with self.at(rule=rule, lbpws=lbpws):
                    self.onto(f"thin=1 lbpws={lbpws}", f"UNMAP: {rule}", options=("--discard",))

    def test_discard_and_power_loss(self):
        """What was unmapped stays so, or is not believed: nothing old comes back."""
        for rule in ("UNMAP 1: power_loss after", "SYNC 2: power_loss", "SYNC 2: power_loss after",
                     "LBA_STATUS 1: power_loss after", "WRITE 1: power_loss after",
                     "WRITE 3: power_loss after", "SYNC 3: power_loss"):
            with self.at(rule=rule):
                self.onto("thin=1", rule, options=("--discard", *SINGLE))

    def test_nothing_but_discard(self):
        """Of an image of zeros nothing is written but the head, and what was unmapped lasts."""
        self.path("zeros").write_bytes(bytes(SIZE))
        self.image("old", SIZE)
        server = self.target("--lun", f"0 size={SIZE} thin=1 image={self.path('old')}")
        self.copy("--overwrite", "--discard", "zeros", self.url(server))
        self.stored(server, "zeros")

    def test_discard_of_what_was_promised(self):
        """What is zero before --discard is not after it, where unmapped blocks read as a pattern."""
        for lbprz in (0, 2):
            with self.at(lbprz=lbprz):
                self.onto(f"thin=1 lbprz={lbprz} image={self.path('blank')}", old=False,
                          options=("--discard", "--target-is-zero", "--overwrite"))

    def test_other_provisioning_after_a_loss(self):
        """The LUN is not thin any more, or is something else, when the session is built anew."""
        for words in ("thin=0 write-same=1", "lbpws=0", "lbprz=2", "max-same=8", "granule=1024"):
            with self.at(words=words):
                self.onto("thin=1", "WRITE 2: cut", f"LOGIN 2: set {words}", options=SINGLE)


# ---- What is told ---------------------------------------------------------------------------------

class Info(Case):
    def test_info(self):
        for properties, lines in (
                ("", ["makes zeros with +writing them", "provisioning +full"]),
                ("write-same=1", ["makes zeros with +WRITE SAME$"]),
                ("thin=1", ["makes zeros with +WRITE SAME with UNMAP$", "provisioning +thin",
                            "unmapped blocks read as zeros +yes", "unmaps with +UNMAP$",
                            "unmaps in units of +64.00 KiB$", "tells its extents +yes"]),
                ("thin=1 lbprz=2 alignment=8",
                 ["makes zeros with +WRITE SAME$",
                  "unmapped blocks read as zeros +no, as a pattern",
                  "unmaps in units of +64.00 KiB, the first at 4.00 KiB"]),
                ("thin=1 lbprz=0 lbpu=0", ["unmapped blocks read as zeros +not known",
                                           "unmaps with +WRITE SAME with UNMAP$"]),
                ("thin=1 lbpws=0 lbpu=0", ["unmaps with +nothing$"])):
            with self.at(properties=properties):
                out = self.info(self.target("--lun", f"0 {properties}"))
                for line in lines:
                    self.assertRegex(out, f"(?m)^{line}")

    def test_asked_in_a_round_that_there_is(self):
        """Opening takes no more round trips: MODE SENSE is not answered before the answers to three
        pages and to the question about WRITE SAME are out, all of which are sent behind it."""
        server = self.target("MODE_SENSE 1: hold 4 3600000")
        self.info(server)
        self.assertEqual([e["n"] for e in server.log("CODES")], [1])

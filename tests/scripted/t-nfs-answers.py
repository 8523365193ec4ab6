# SPDX-License-Identifier: LGPL-2.1-or-later
"""NFS: answers that are no success, or less than what was asked for, or none at all."""

import nfs


class Errors(nfs.NfsCase):
    def test_jukebox_reading(self):
        server = self.serve_image("READ 3-6: status JUKEBOX")
        self.read_copy(server)
        self.fired(server, 4)
        self.same("image", "copy")
        self.assertEqual(nfs.ranges(server.log("READ")), nfs.CHUNKS)
        self.assertEqual(nfs.connections(server), 1)

    def test_jukebox_writing(self):
        for call in ("WRITE", "COMMIT", "CREATE", "SETATTR", "LINK", "REMOVE"):
            with self.at(call=call):
                server = self.serve_target(f"{call} 1-3: status JUKEBOX")
                self.write_copy(server)
                self.fired(server, 3)
                self.stored(server)
                self.assertEqual(self.rewrites(server), set())
                self.assertEqual(nfs.connections(server), 1)

    def test_jukebox_replacing(self):
        server = self.serve_old("RENAME 1-3: status JUKEBOX")
        self.write_copy(server, "--overwrite")
        self.fired(server, 3)
        self.stored(server)

    def test_jukebox_for_ever(self):
        server = self.serve_target("WRITE: status JUKEBOX")
        # After some seconds there is a journal, with which the temporary file stays.
        result = self.write_copy(server, "--journal", "none", "--give-up", 1, status=3)
        self.says(result, "given up after .*NFS3ERR_JUKEBOX")
        self.empty(server)

    def test_fatal_writing(self):
        """The word is said, nothing is left, and what has the name stays as it was."""
        for word in ("NOSPC", "DQUOT", "ROFS", "STALE", "FBIG", "IO", "ACCES"):
            for number in (1, 5):
                with self.at(word=word, number=number):
                    server = self.serve_old(f"WRITE {number}: status {word}")
                    result = self.write_copy(server, "--journal", "none", "--overwrite", status=3)
                    self.says(result, f"NFS3ERR_{word}")
                    self.stored(server, original="old")

    def test_fatal_at_the_end(self):
        for call, word in (("COMMIT", "NOSPC"), ("COMMIT", "IO"), ("RENAME", "ACCES")):
            with self.at(call=call, word=word):
                server = self.serve_old(f"{call}: status {word}")
                result = self.write_copy(server, "--journal", "none", "--overwrite", status=3)
                self.says(result, f"NFS3ERR_{word}")
                self.stored(server, original="old")

    def test_fatal_creating(self):
        for word in ("NOSPC", "DQUOT", "ROFS", "ACCES"):
            with self.at(word=word):
                server = self.serve_target(f"CREATE: status {word}")
                result = self.write_copy(server, status=2)
                self.says(result, f"NFS3ERR_{word}")
                self.empty(server)

    def test_fatal_reading(self):
        for word in ("IO", "STALE", "ACCES"):
            with self.at(word=word):
                self.clear_copy()
                server = self.serve_image(f"READ 5: status {word}")
                result = self.read_copy(server, status=3)
                self.says(result, f"NFS3ERR_{word}")
                self.no_copy(result)

    def test_stale(self):
        """Another file is there under the name: it is not taken for the one that was."""
        server = self.serve_image("READ 4: stale")
        result = self.read_copy(server, status=3)
        self.says(result, "NFS3ERR_STALE")
        self.no_copy(result)

    def test_stale_after_a_cut(self):
        server = self.serve_image("READ 4: stale", "READ 4: cut before")
        result = self.read_copy(server, status=3)
        self.says(result, "NFS3ERR_STALE")
        self.no_copy(result)

    def test_no_exclusive_create(self):
        server = self.serve_target("CREATE 1: status NOTSUPP")
        self.write_copy(server)
        self.stored(server)
        self.assertEqual([entry["mode"] for entry in server.log("CREATE")[1:]], ["GUARDED"])


class Short(nfs.NfsCase):
    def test_reads(self):
        server = self.serve_image("READ: short 28672")
        self.read_copy(server)
        self.fired(server, 8)
        self.same("image", "copy")

    def test_one_byte(self):
        server = self.serve_image("READ 2: short 1", "READ 5: short 262143")
        self.read_copy(server)
        self.fired(server, 2)
        self.same("image", "copy")

    def test_writes(self):
        server = self.serve_target("WRITE: short 28672")
        self.write_copy(server)
        self.fired(server, 8)
        self.stored(server)

    def test_one_byte_written(self):
        server = self.serve_target("WRITE 2: short 1", "WRITE 5: short 262143")
        self.write_copy(server)
        self.fired(server, 2)
        self.stored(server)

    def test_short_and_cut(self):
        server = self.serve_target("WRITE: short 65536", "WRITE 7: cut after", "WRITE 15: restart")
        self.write_copy(server)
        self.stored(server)

    def test_end_too_early(self):
        server = self.serve_image("READ 3: eof")
        result = self.read_copy(server, status=3)
        self.fired(server)
        self.says(result, "the file ends at")
        self.no_copy(result)


class Order(nfs.NfsCase):
    def test_reads(self):
        server = self.serve_image("READ: hold 4")
        self.read_copy(server)
        self.fired(server, 8)
        self.same("image", "copy")

    def test_writes(self):
        server = self.serve_target("WRITE: hold 4")
        self.write_copy(server)
        self.fired(server, 8)
        self.stored(server)
        self.assertEqual(self.rewrites(server), set())

    def test_in_order(self):
        server = self.serve_image("READ: hold 4")
        self.read_copy(server, "--in-order")
        self.same("image", "copy")

    def test_delays(self):
        server = self.serve_target("WRITE 2: delay 150", "WRITE 3: delay 50", "COMMIT: delay 50")
        self.write_copy(server)
        self.stored(server)


class Garbage(nfs.NfsCase):
    """Right bytes, or an error; nothing else."""

    options = "--timeout", 2, "--give-up", 6

    def test_reading(self):
        for kind in ("stream", "record", "body"):
            with self.at(kind=kind):
                self.clear_copy()
                server = self.serve_image(f"READ 4: garbage {kind}")
                result = self.read_copy(server, *self.options, status=None)
                self.fired(server)
                if result.status == 0:
                    self.same("image", "copy")
                else:
                    self.assertEqual(result.status, 3, result)
                    self.assertTrue(result.err)
                    self.no_copy(result)

    def test_writing(self):
        for call in ("WRITE", "COMMIT", "CREATE", "LINK"):
            for kind in ("stream", "record", "body"):
                with self.at(kind=kind, call=call):
                    server = self.serve_target(f"{call} 1: garbage {kind}")
                    result = self.write_copy(server, *self.options, status=None)
                    self.fired(server)
                    self.check(server, result)

    def check(self, server, result):
        if result.status == 0:
            self.stored(server)
            return
        self.assertIn(result.status, (2, 3), result)
        self.assertTrue(result.err)
        # What was carried out is not known: the whole file may have its name, half of one may not.
        if "/export/image" in server.command("list"):
            server.command(f"dump {self.path('stable')}")
            self.same("image", "stable/export/image")

    def test_opening(self):
        # A record that is no answer leaves the call waiting: that is Silence.test_opening.
        for call in ("MNT", "FSINFO", "LOOKUP", "ACCESS"):
            for kind in ("stream", "body"):
                with self.at(kind=kind, call=call):
                    self.clear_copy()
                    server = self.serve_image(f"{call} 1: garbage {kind}")
                    result = self.read_copy(server, "--overwrite", *self.options, status=None)
                    self.fired(server)
                    self.assertIn(result.status, (0, 2), result)
                    if result.status == 0:
                        self.same("image", "copy")


class Changing(nfs.NfsCase):
    """A source that changes while it is copied."""

    def test_written_to(self):
        server = self.serve_image("READ 5: touch")
        result = self.read_copy(server, status=3)
        self.fired(server)
        self.says(result, "changed")
        self.no_copy(result)

    def test_grown(self):
        server = self.serve_image(f"READ 5: size {nfs.SIZE + 1}")
        result = self.read_copy(server, status=3)
        self.fired(server)
        self.says(result, "changed|size")
        self.no_copy(result)

    def test_shrunk(self):
        server = self.serve_image(f"READ 5: size {nfs.CHUNK}")
        result = self.read_copy(server, status=3)
        self.fired(server)
        self.says(result, "the file ends at|changed|size|smaller")
        self.no_copy(result)

    def test_allowed(self):
        server = self.serve_image("READ 5: touch")
        self.read_copy(server, "--allow-live")
        self.fired(server)
        self.same("image", "copy")

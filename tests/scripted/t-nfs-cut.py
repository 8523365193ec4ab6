# SPDX-License-Identifier: LGPL-2.1-or-later
"""NFS: connections that break, at each call that a small copy makes."""

import nfs


class Cut(nfs.NfsCase):
    """A copy is cut at its n-th call, for n from 1 until there are not so many."""

    def each_call(self, serve, copy, check, where):
        for number in range(1, 200):
            with self.at(call=number, where=where):
                server = serve(f"any {number}: cut {where}")
                result = copy(server, status=None)
                faults = [entry for entry in server.log() if entry["fault"]]
                server.stop()
                if not faults:
                    self.assertGreater(number, 12, "calls of a copy")
                    return
                self.check_end(result, server, faults[0], check)
        self.fail("there is no end of calls")

    def check_end(self, result, server, fault, check):
        """While it opens its ends, and has touched nothing, a copy may give up."""
        begun = server.log("READ", "CREATE")
        if result.status == 2 and fault["call"] in ("MNT", "FSINFO", "LOOKUP", "ACCESS", "GETATTR"):
            self.says(result, "closed|reset")
            self.assertEqual(begun, [])
        else:
            self.assertEqual(result.status, 0, f"cut at {fault}: {result}")
            check()

    def read(self, where):
        self.image("image", nfs.SIZE)

        def serve(rule):
            self.clear_copy()
            return self.serve("--file", "/export/image=image", rule)

        self.each_call(serve, self.read_copy, lambda: self.same("image", "copy"), where)

    def write(self, where, *options):
        self.image("image", nfs.SIZE)
        self.image("old", nfs.CHUNK)

        def serve(rule):
            old = ["--file", "/export/image=old"] if options else []
            return self.serve("--dump", "stable", *old, rule)

        def check():
            # Under its name, and under no other.
            self.assertEqual([path.name for path in self.path("stable/export").iterdir()],
                             ["image"])
            self.same("image", "stable/export/image")

        self.each_call(serve, lambda server, status: self.write_copy(server, *options,
                                                                     status=status), check, where)

    def test_read_before(self):
        self.read("before")

    def test_read_half(self):
        self.read("half")

    def test_read_reset(self):
        self.read("reset")

    def test_write_before(self):
        self.write("before")

    def test_write_after(self):
        self.write("after")

    def test_write_half(self):
        self.write("half")

    def test_overwrite_before(self):
        self.write("before", "--overwrite")

    def test_overwrite_after(self):
        self.write("after", "--overwrite")

    def test_overwrite_reset(self):
        self.write("reset", "--overwrite")


class Again(nfs.NfsCase):
    """What comes after the cut."""

    def test_refused_for_a_while(self):
        server = self.serve_target("WRITE 4: cut before", "connect 3-5: refuse")
        self.write_copy(server)
        self.fired(server, 4)
        self.stored(server)

    def test_closed_for_a_while(self):
        server = self.serve_image("READ 4: close 400")
        self.read_copy(server)
        self.fired(server)
        self.same("image", "copy")

    def test_restart_takes_a_while(self):
        server = self.serve_target("WRITE 4: restart", "WRITE 4: close 400")
        self.write_copy(server)
        self.fired(server)
        self.stored(server)
        self.rewrites(server)

    def test_accepted_and_never_served(self):
        server = self.serve_image("READ 4: cut before", "connect 3: ignore")
        self.read_copy(server, "--timeout", 5)
        self.fired(server, 2)
        self.same("image", "copy")

    def test_again_and_again(self):
        """More often than there are chunks: what moves is progress."""
        server = self.serve_target(*[f"WRITE {number}: cut after" for number in range(2, 40, 3)])
        self.write_copy(server)
        self.fired(server, 4)
        self.stored(server)

    def test_lanes(self):
        server = self.serve_target("WRITE 9: restart", "WRITE 30: cut after", size=32 * nfs.CHUNK)
        self.write_copy(server, "--lanes", 3)
        self.fired(server, 2)
        self.stored(server)

    def test_nothing_is_repeated_without_time(self):
        """--give-up is what makes a copy go on."""
        server = self.serve_target("connect 3-: refuse", "WRITE 4: cut before")
        result = self.write_copy(server, "--give-up", 1, status=3)
        self.fired(server, 2)
        self.says(result, "given up|without progress")


class Silence(nfs.NfsCase):
    """No answer, and no end."""

    IMPATIENT = ("--timeout", 2, "--give-up", 6)

    def test_for_ever_reading(self):
        server = self.serve_image("READ 3: silence")
        result = self.read_copy(server, *self.IMPATIENT, status=3)
        self.fired(server)
        self.says(result, "given up after .* without progress: .*no sign of life")
        self.no_copy(result)

    def test_for_ever_writing(self):
        server = self.serve_target("WRITE 3: silence")
        result = self.write_copy(server, *self.IMPATIENT, status=3)
        self.fired(server)
        self.says(result, "given up after .* without progress: .*no sign of life")
        # Nobody can remove the temporary file; it is said.
        self.says(result, r"\.image\.lunferry-")
        self.assertNotIn("/export/image", server.command("list"))

    def test_one_call_for_ever(self):
        """The server lives, and answers everything but one READ."""
        server = self.serve_image("READ 3: ignore")
        result = self.read_copy(server, *self.IMPATIENT, status=3)
        self.fired(server)
        self.says(result, "given up after .* without progress: .*answers pings")
        self.assertEqual(nfs.connections(server), 1)
        self.no_copy(result)

    def test_one_call_slow(self):
        # The third ping comes when the timeout is over.
        server = self.serve_image("READ 3: until NULL 3")
        self.read_copy(server, "--timeout", 5)
        self.fired(server)
        self.same("image", "copy")
        self.assertEqual(nfs.connections(server), 1)

    def test_opening(self):
        """Nothing has moved since the start either."""
        for call in ("MNT", "FSINFO", "LOOKUP", "ACCESS"):
            with self.at(call=call):
                server = self.serve_image(f"{call} 1: ignore")
                result = self.read_copy(server, *self.IMPATIENT, status=2)
                self.fired(server)
                self.assertTrue(result.err)
                self.no_copy(result)

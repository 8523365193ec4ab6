# SPDX-License-Identifier: LGPL-2.1-or-later
"""NFS: what was acknowledged and not committed is lost (RFC 1813 3.3.7, 4.8)."""

import nfs


class Durable(nfs.NfsCase):
    def written_before(self, server, number):
        return {entry["offset"] for entry in server.log("WRITE") if entry["n"] < number}

    def test_restart(self):
        """At each WRITE: those before it are written again, and no other."""
        self.image("image", nfs.SIZE)
        for number in range(1, 9):
            with self.at(number=number):
                server = self.serve(f"WRITE {number}: restart")
                self.write_copy(server)
                self.fired(server)
                self.stored(server)
                self.assertEqual(self.rewrites(server), self.written_before(server, number))

    def test_restart_at_commit(self):
        server = self.serve_target("COMMIT 1: restart")
        self.write_copy(server)
        self.fired(server)
        self.stored(server)
        self.assertEqual(ranges_of(self.rewrites(server)), nfs.CHUNKS)

    def test_restart_twice(self):
        """One WRITE at a time: with more, one may be answered after the COMMIT was sent that in
        fact covers it, and the log cannot show that."""
        server = self.serve_target("WRITE 5: restart", "WRITE 11: restart")
        self.write_copy(server, "-m", 1)
        self.fired(server, 2)
        self.stored(server)
        self.rewrites(server)

    def test_dry_run_leaves_what_can_be_resumed(self):
        server = self.serve_target("WRITE 5: status NOSPC")
        options = "--journal", "journal", "--flush-size", nfs.CHUNK, "-m", 1
        self.write_copy(server, *options, status=3)
        before = self.path("journal").read_bytes()
        for more in ((), ("--resume",)):
            with self.at(more=more):
                self.write_copy(server, "--dry-run", *more, *options)
                self.assertEqual(self.path("journal").read_bytes(), before)
        self.write_copy(server, "--resume", *options)
        self.stored(server)
        self.assertEqual(len(server.log("WRITE")), 9)
        self.assertFalse(self.path("journal").exists())

    def test_forgotten(self):
        """The session lives: behind a name there may be several servers."""
        server = self.serve_target("WRITE 5: forget")
        self.write_copy(server)
        self.fired(server)
        self.stored(server)
        self.assertEqual(self.rewrites(server), self.written_before(server, 5))

    def test_forgotten_at_commit(self):
        server = self.serve_target("COMMIT 1: forget")
        self.write_copy(server)
        self.fired(server)
        self.stored(server)
        self.assertEqual(ranges_of(self.rewrites(server)), nfs.CHUNKS)

    def test_other_verifier_in_commit(self):
        """Nothing is lost, but nobody can know that."""
        server = self.serve_target("COMMIT 1: verifier")
        self.write_copy(server)
        self.fired(server)
        self.stored(server)
        self.assertEqual(ranges_of(self.rewrites(server)), nfs.CHUNKS)

    def test_other_verifier_in_write(self):
        server = self.serve_target("WRITE 3: verifier")
        self.write_copy(server)
        self.fired(server)
        self.stored(server)
        offset = server.log("WRITE")[2]["offset"]
        self.assertEqual(self.rewrites(server), {offset})

    def test_commit_cut(self):
        """Before it is carried out, and after: it is asked for again, and nothing else."""
        self.image("image", nfs.SIZE)
        for where in ("before", "after", "half", "reset"):
            with self.at(where=where):
                server = self.serve(f"COMMIT 1: cut {where}")
                self.write_copy(server)
                self.fired(server)
                self.stored(server)
                self.assertEqual(self.rewrites(server), set())
                self.assertEqual(len(server.log("COMMIT")), 2)

    def test_commit_slow(self):
        """A session that answers pings is not given up, whatever it takes for a COMMIT: the third ping
        comes when the timeout is over."""
        server = self.serve_target("COMMIT 1: until NULL 3")
        self.write_copy(server, "--timeout", 5)
        self.fired(server)
        self.stored(server)
        self.assertEqual(nfs.connections(server), 1)
        self.assertEqual(len(server.log("COMMIT")), 1)
        self.assertTrue(server.log("NULL"))

    def test_sync_answers(self):
        """What the server calls FILE_SYNC needs no COMMIT, and outlives the session."""
        server = self.serve_target("WRITE 1-3: sync", "WRITE 6: restart")
        self.write_copy(server)
        self.fired(server, 4)
        self.stored(server)
        synced = {entry["offset"] for entry in server.log("WRITE")[:3]}
        self.assertEqual(self.rewrites(server), self.written_before(server, 6) - synced)


def ranges_of(offsets):
    return [(offset, nfs.CHUNK) for offset in sorted(offsets)]

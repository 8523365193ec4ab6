# SPDX-License-Identifier: LGPL-2.1-or-later
"""NFS: a target of a stream, which cannot be read again."""

import nfs


class Stream(nfs.NfsCase):
    def stream_copy(self, server, *options, status=0):
        """Copies the bytes of the file "image", which come in on stdin, to the server."""
        return self.copy("--request-size", nfs.CHUNK, *options, "-", self.url(server),
                         status=status, feed="image")

    def test_all_is_durable_at_once(self):
        """And the size is set once (the mode was before), when it is known."""
        server = self.serve_target(size=nfs.SIZE - 5)
        self.stream_copy(server)
        self.stored(server)
        self.assertEqual({entry["committed"] for entry in server.log("WRITE")}, {"FILE_SYNC"})
        self.assertEqual(server.log("COMMIT"), [])
        calls = [entry["call"] for entry in server.log("WRITE", "SETATTR")]
        self.assertEqual(calls, ["SETATTR"] + ["WRITE"] * 8 + ["SETATTR"])

    def test_restart(self):
        """At each WRITE: it alone is carried out once more."""
        self.image("image", nfs.SIZE)
        for number in range(1, 9):
            with self.at(number=number):
                server = self.serve(f"WRITE {number}: restart")
                self.stream_copy(server, "-m", 1)
                self.fired(server)
                self.stored(server)
                self.assertEqual(len(server.log("WRITE")), 9)

    def test_lost_connection(self):
        self.image("image", nfs.SIZE)
        for call in ("WRITE 1", "WRITE 5", "WRITE 8", "SETATTR 2"):
            for how in ("before", "after", "half", "reset"):
                with self.at(call=call, how=how):
                    server = self.serve(f"{call}: cut {how}")
                    self.stream_copy(server)
                    self.fired(server)
                    self.stored(server)

    def test_zeros_at_the_end(self):
        """Which nobody writes."""
        self.path("image").write_bytes(b"start" + bytes(nfs.SIZE - 5))
        server = self.serve()
        self.stream_copy(server, "--verify")
        self.stored(server)
        self.assertEqual(len(server.log("WRITE")), 1)

    def test_full(self):
        for rule in ("WRITE 5: status NOSPC", "SETATTR 2: status DQUOT", "SETATTR 2: status NOSPC"):
            with self.at(rule=rule):
                server = self.serve_target(rule)
                result = self.stream_copy(server, status=3)
                self.says(result, "^lunferry: target: ")
                self.says(result, "; the file of that name, if there was one, is as it was$")
                self.assertNotIn("--resume", result.err)
                self.empty(server)

    def test_less_is_read_back(self):
        server = self.serve_target("READ 3: eof")
        result = self.stream_copy(server, "--verify", status=3)
        self.says(result, "target: reading back: .* the file ends at")
        self.empty(server)


class RequestSizes(nfs.NfsCase):
    def sizes(self, server, call):
        return {entry["count"] for entry in server.log(call)}

    def test_each_side_has_its_own(self):
        source = self.serve_image()
        for read, write in ((64, 256), (256, 64), (128, 128), (64, 192)):
            with self.at(read=read, write=write):
                before = len(source.log("READ"))
                target = self.serve()
                self.copy("--request-size", f"{read}k,{write}k", self.url(source),
                          self.url(target))
                self.stored(target)
                reads = {entry["count"] for entry in source.log("READ")[before:]}
                self.assertEqual(max(reads), read << 10)
                self.assertEqual(max(self.sizes(target, "WRITE")), write << 10)
                if 256 % max(read, write) == 0:
                    self.assertEqual(len(reads), 1)
                    self.assertEqual(len(self.sizes(target, "WRITE")), 1)

    def test_a_stream_is_collected(self):
        target = self.serve_target()
        self.copy("--request-size", "4k,256k", "-", self.url(target), feed="image")
        self.stored(target)
        self.assertEqual(self.sizes(target, "WRITE"), {256 << 10})

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests against the scripted NFS server share."""

import harness

CHUNK = 256 << 10  # a granule of a small image too
SIZE = 8 * CHUNK
CHUNKS = [(at * CHUNK, CHUNK) for at in range(8)]


def ranges(entries):
    """(offset, bytes) of what READs or WRITEs did, in order of their offsets."""
    return sorted((entry["offset"], entry["done"]) for entry in entries if entry["status"] == "OK")


def connections(server):
    """How many were made to the NFS service; the one to the MOUNT service is not counted."""
    return len(server.log("connect")) - len(server.log("MNT"))


class NfsCase(harness.Case):
    """With a server that exports /export."""

    def serve(self, *arguments):
        # A copy's lock file is no part of what most tests count.
        return self.start("nfs3.py", "--class", "LOCK=lunferry-lock", *arguments)

    def serve_target(self, *rules, size=SIZE):
        """For a copy of the file "image" to the server."""
        self.image("image", size)
        return self.serve(*rules)

    def serve_image(self, *rules, size=SIZE):
        """A source: /export/image begins as the file "image"."""
        self.image("image", size)
        return self.serve("--file", "/export/image=image", *rules)

    def serve_old(self, *rules):
        """A target that is there: /export/image begins as the file "old"."""
        self.image("image", SIZE)
        self.image("old", CHUNK)
        return self.serve("--file", "/export/image=old", *rules)

    def url(self, server, name="image"):
        return f"nfs://127.0.0.1/export/{name}?nfsport={server.port}&mountport={server.port}"

    def read_copy(self, server, *options, status=0):
        """Copies the server's image to the file "copy", in chunks of a granule."""
        return self.copy("--request-size", CHUNK, *options, self.url(server), "copy", status=status)

    def write_copy(self, server, *options, status=0, name="image"):
        """Copies the file "image" to the server."""
        return self.copy("--request-size", CHUNK, *options, "image", self.url(server, name),
                         status=status)

    # ---- What is there afterwards -------------------------------------------------------------

    def stored(self, server, name="image", beside=(), original="image"):
        """On stable storage are the bytes of the file "image" under this name, and nothing else but
        the names `beside`: no temporary file."""
        self.assertEqual(set(server.command("list")),
                         {f"/export/{each}" for each in (name, *beside)})
        server.command(f"dump {self.path('stable')}")
        self.same(original, f"stable/export/{name}")

    def empty(self, server):
        self.assertEqual(server.command("list"), {})

    def clear_copy(self):
        """Before another round in the same directory."""
        for path in self.directory.iterdir():
            if path.name == "copy" or ".copy." in path.name:
                path.unlink()

    def no_copy(self, result):
        """There is no file "copy"; a temporary one only where it is said how to go on with it."""
        self.assertFalse(self.path("copy").exists())
        left = [path.name for path in self.directory.iterdir() if ".copy." in path.name]
        self.assertEqual(bool(left), "go on with: lunferry copy --resume" in result.err,
                         f"{left}: {result}")

    def fired(self, server, count=1):
        """The rules have applied: else a test would show nothing."""
        faults = [entry for entry in server.log() if entry["fault"]]
        self.assertGreaterEqual(len(faults), count, "no rule has applied")

    def rewrites(self, server):
        """
        Checks each WRITE of whole granules against what its writer knew: a granule is not written
        again when it is durable, nor while nothing has been heard of its loss. At the end, every
        granule is durable. Returns the offsets that were written more than once.
        """
        written, durable, again, ever = {}, set(), set(), set()
        for entry in server.log("WRITE", "COMMIT"):
            verifier = entry.get("verifier") if entry["answered"] is not False else None
            if entry["call"] == "COMMIT" and verifier:
                durable |= {offset for offset, epoch in written.items() if epoch == verifier}
                written = {offset: epoch for offset, epoch in written.items() if offset in durable}
            if entry["call"] == "COMMIT" or entry["status"] != "OK":
                continue
            offset = entry["offset"]
            self.assertIn((offset, entry["done"]), CHUNKS)
            self.assertNotIn(offset, durable, "it was committed, and is written again")
            if verifier:
                self.assertNotEqual(written.get(offset), verifier, "it is written again needlessly")
            if offset in ever:
                again.add(offset)
            ever.add(offset)
            written[offset] = verifier  # None: the writer does not know
            if entry["committed"] != "UNSTABLE":
                durable.add(offset)
        self.assertEqual(sorted(durable), [offset for offset, _ in CHUNKS])
        return again

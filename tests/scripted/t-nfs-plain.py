# SPDX-License-Identifier: LGPL-2.1-or-later
"""NFS: copies that nothing disturbs. They show that the scripted server does its protocol."""

import nfs


class Plain(nfs.NfsCase):
    def test_read(self):
        server = self.serve_image()
        self.read_copy(server)
        self.same("image", "copy")
        self.assertEqual(nfs.ranges(server.log("READ")), nfs.CHUNKS)

    def test_write(self):
        server = self.serve_target()
        self.write_copy(server)
        self.stored(server)
        writes = server.log("WRITE")
        self.assertEqual(nfs.ranges(writes), nfs.CHUNKS)
        self.assertEqual({entry["stable"] for entry in writes}, {"UNSTABLE"})
        self.assertEqual(len(server.log("COMMIT")), 1)

    def test_odd_size(self):
        size = 3 * nfs.CHUNK + 12345
        server = self.serve_image(size=size)
        self.read_copy(server)
        self.same("image", "copy")
        self.write_copy(server, name="written")
        self.stored(server, "written", beside=["image"])

    def test_small_server(self):
        """One that takes less at once than a chunk has."""
        server = self.serve_image("--max-read", 40960, "--max-write", 20480)
        self.read_copy(server)
        self.same("image", "copy")
        self.write_copy(server, name="written")
        self.stored(server, "written", beside=["image"])
        self.assertEqual(max(entry["count"] for entry in server.log("READ")), 40960)
        self.assertEqual(max(entry["count"] for entry in server.log("WRITE")), 20480)

    def test_lanes(self):
        server = self.serve_image(size=32 * nfs.CHUNK)
        self.read_copy(server, "--lanes", 3)
        self.same("image", "copy")
        self.write_copy(server, "--lanes", 3, name="written")
        self.stored(server, "written", beside=["image"])

    def test_overwrite(self):
        server = self.serve_image()
        self.image("other", nfs.SIZE)
        self.copy("--overwrite", "other", self.url(server))
        self.path("other").rename(self.path("image"))
        self.stored(server)
        self.assertEqual(len(server.log("RENAME")), 1)

    def test_exists(self):
        server = self.serve_image()
        result = self.write_copy(server, status=2)
        self.says(result, "--overwrite")
        self.stored(server)

    def test_terabyte(self):
        server = self.serve("--sparse", f"/export/disk={1 << 40}")
        result = self.lunferry("info", self.url(server, "disk"))
        self.assertIn(str(1 << 40), result.out)
        self.assertRegex(result.out, r"(?m)^allocated +0 bytes \(0 B\), less than its size: sparse$")
        self.assertRegex(result.out, r"(?m)^extents +not known: .* does not tell where the holes are$")

    def test_full_file(self):
        result = self.lunferry("info", self.url(self.serve_image()))
        self.assertRegex(result.out, r"(?m)^extents +not known: NFS version 3 does not tell$")
        self.assertNotIn("sparse", result.out)

    def test_missing_export(self):
        server = self.serve()
        result = self.copy(self.url(server, "nowhere/image"), "copy", status=2)
        self.says(result, "MNT3ERR_NOENT|NFS3ERR_NOENT")
        self.assertFalse(self.path("copy").exists())

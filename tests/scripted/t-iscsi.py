# SPDX-License-Identifier: LGPL-2.1-or-later
"""lunferry against the scripted iSCSI target, nothing going wrong."""

import shutil
import subprocess
import unittest

import iscsi_case

MIB = 1 << 20


class Plain(iscsi_case.Case):
    def both_ways(self, *options, query="", size=4 * MIB + 4096, lun=0):
        """A file to a LUN and back."""
        self.image("image", size)
        server = self.target(*options)
        self.copy("image", self.url(server, lun, query))
        self.stored(server, "image", lun)
        self.copy(self.url(server, lun, query), "back")
        self.starts_with("back", "image")
        return server

    def test_cache(self):
        server = self.both_ways()
        # Whatever was written without FUA was flushed before the end.
        self.assertEqual(server.command("cached 0"), 0)
        self.assertTrue(server.log("SYNC"))

    def test_no_cache(self):
        server = self.both_ways("--lun", "0 wce=0")
        self.assertEqual(server.log("SYNC"), [])

    def test_no_caching_page(self):
        # Not told is taken for volatile.
        server = self.both_ways("--lun", "0 caching-page=0")
        self.assertTrue(server.log("SYNC"))

    def test_no_fua(self):
        server = self.both_ways("--lun", "0 fua=0")
        self.assertEqual([e for e in server.log("WRITE", "READ") if e["fua"]], [])

    def test_blocks_of_4096(self):
        self.both_ways("--lun", "0 block-size=4096")

    def test_size_that_is_no_multiple_of_a_block(self):
        self.both_ways("--lun", "0 block-size=4096", size=3 * MIB + 777)

    def test_header_digest(self):
        self.both_ways(query="header-digest=crc32c")

    def test_unsolicited_data(self):
        self.both_ways("--parameter", "InitialR2T=No")

    def test_no_immediate_data(self):
        self.both_ways("--parameter", "ImmediateData=No")

    def test_small_segments(self):
        self.both_ways("--parameter", "MaxRecvDataSegmentLength=8192", "--parameter",
                       "MaxBurstLength=16384", "--parameter", "FirstBurstLength=8192")

    def test_window_of_one(self):
        self.both_ways("--window", 1)

    def test_window_changes(self):
        self.both_ways("WRITE 3: window 1", "WRITE 9: window 20", "READ 5: window 2")

    def test_reordered(self):
        self.both_ways("READ 4-30: hold 3", "WRITE 2-30: hold 5", "SYNC: hold 1")

    def test_small_transfers(self):
        server = self.both_ways("--lun", "0 max-transfer=24")
        self.assertLessEqual(max(e["blocks"] for e in server.log("WRITE", "READ")), 24)

    def test_lun_numbers(self):
        self.both_ways("--lun", "3 size=8388608", "--lun", "300 size=8388608", lun=300)

    def test_chap(self):
        self.path("password").write_text("one secret of ours\n")
        self.path("theirs").write_text("and one of theirs\n")
        query = ("user=us&password-file=password&mutual-user=them&mutual-password-file=theirs")
        self.both_ways("--chap", "us:one secret of ours", "--mutual", "them:and one of theirs",
                       query=query)

    def test_chap_refused(self):
        self.image("image", MIB)
        self.path("password").write_text("not the secret\n")
        server = self.target("--chap", "us:one secret of ours")
        result = self.copy("image", self.url(server, query="user=us&password-file=password"),
                           status=2)
        self.says(result, "CHAP|password|authentication")

    def test_target_that_lies_about_chap(self):
        self.image("image", MIB)
        self.path("password").write_text("one secret of ours\n")
        self.path("theirs").write_text("and one of theirs\n")
        server = self.target("--chap", "us:one secret of ours", "--mutual", "them:no idea of it")
        query = ("user=us&password-file=password&mutual-user=them&mutual-password-file=theirs")
        self.copy("image", self.url(server, query=query), status=2)
        self.assertEqual(server.log("WRITE"), [])

    def test_lanes(self):
        self.image("image", 8 * MIB)
        server = self.target()
        self.copy("--lanes", 2, "image", self.url(server))
        self.stored(server, "image")
        logins = server.log("LOGIN")
        self.assertEqual(len({entry["isid"] for entry in logins}), len(logins))

    def test_a_tebibyte(self):
        self.image("image", MIB)
        server = self.target("--lun", f"0 size={1 << 40}")
        self.copy("image", self.url(server))
        self.stored(server, "image")

    def test_all_of_a_lun(self):
        self.image("image", 2 * MIB)
        server = self.target("--lun", f"0 image={self.path('image')}")
        self.copy(self.url(server), "back")
        self.starts_with("back", "image")
        self.assertEqual(self.path("back").stat().st_size, 8 * MIB)

    def test_moved(self):
        self.image("image", MIB)
        server = self.target("--portals", 2)
        second = server.command("ports")[1]
        server.command(f"rule LOGIN 1: move 127.0.0.1:{second}")
        self.copy("image", self.url(server))
        self.assertEqual([e["portal"] for e in server.log("LOGIN")], [1, 2])

    @unittest.skipUnless(shutil.which("qemu-img"), "no qemu-img")
    def test_qemu_agrees(self):
        self.image("image", 2 * MIB)
        server = self.target("--lun", f"0 size={2 * MIB}")
        self.copy("image", self.url(server))
        run = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", "image",
                              self.url(server)], cwd=self.directory, capture_output=True,
                             text=True, timeout=180, check=False)
        if "Unknown protocol" in run.stderr:
            self.skipTest("qemu-img without its iSCSI driver")
        self.assertEqual((run.returncode, run.stderr), (0, ""), run.stdout)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The scripted NFS server's own promises, without lunferry: what the other tests rely on."""

import sys
import unittest

import harness

sys.path.insert(0, str(harness.ROOT / "tests" / "servers"))

# pylint: disable=wrong-import-position
from nfs3_procedures import Failure, Procedures  # noqa: E402
from script import Script  # noqa: E402
from tree import PAGE, Tree  # noqa: E402
from xdr import Packer, Unpacker  # noqa: E402


class Layers(unittest.TestCase):
    """Two layers of a file."""

    def setUp(self):
        self.tree = Tree()
        self.file = self.tree.make_file("/a/file")
        self.file.load(b"s" * 3 * PAGE)

    def test_volatile_is_read_and_lost(self):
        self.file.write(PAGE - 10, b"v" * 20, False)
        self.assertEqual(self.file.read(PAGE - 11, 22), b"s" + b"v" * 20 + b"s")
        self.tree.forget()
        self.assertEqual(self.file.read(0, 4 * PAGE), b"s" * 3 * PAGE)

    def test_committed_stays(self):
        self.file.write(10, b"v", False)
        self.file.write(2 * PAGE, b"w", False)
        self.file.commit(0, PAGE)
        self.tree.forget()
        self.assertEqual(self.file.read(10, 1), b"v")
        self.assertEqual(self.file.read(2 * PAGE, 1), b"s")
        self.file.write(2 * PAGE, b"w", False)
        self.file.commit(0, 0)
        self.tree.forget()
        self.assertEqual(self.file.read(2 * PAGE, 1), b"w")

    def test_sync_write_commits_nothing_else(self):
        self.file.write(10, b"v", False)
        self.file.write(12, b"w", True)
        self.assertEqual(self.file.read(9, 5), b"svsws")
        self.tree.forget()
        self.assertEqual(self.file.read(9, 5), b"sssws")

    def test_growth_is_volatile_too(self):
        self.file.write(3 * PAGE, b"v", False)
        self.assertEqual(self.file.size, 3 * PAGE + 1)
        self.tree.forget()
        self.assertEqual(self.file.size, 3 * PAGE)

    def test_a_cut_leaves_zeros(self):
        self.file.write(PAGE, b"v" * PAGE, False)
        self.file.resize(PAGE + 1)
        self.file.resize(2 * PAGE)
        self.assertEqual(self.file.read(PAGE, PAGE), b"v" + bytes(PAGE - 1))


class Names(unittest.TestCase):
    """CREATE and its like."""

    def setUp(self):
        self.server = Procedures(1 << 20, 1 << 20)
        self.root = self.server.tree.root

    def call(self, name, packer):
        return getattr(self.server, name)(Unpacker(packer.bytes()), {}, None)

    def place(self, name):
        return Packer().opaque(self.root.handle).string(name)

    def exclusive(self, verifier):
        return self.call("CREATE", self.place("new").u32(2).fixed(verifier))

    def test_exclusive_create_is_recognised(self):
        first = self.exclusive(b"12345678")
        self.assertEqual(self.exclusive(b"12345678")[:32], first[:32])
        with self.assertRaisesRegex(Failure, "EXIST"):
            self.exclusive(b"87654321")
        self.root.names["new"].write(0, b"x", True)
        with self.assertRaisesRegex(Failure, "EXIST"):
            self.exclusive(b"12345678")

    def test_guarded_create(self):
        attributes = [0] * 6
        self.call("CREATE", self.place("new").u32(1, *attributes))
        with self.assertRaisesRegex(Failure, "EXIST"):
            self.call("CREATE", self.place("new").u32(1, *attributes))
        self.call("CREATE", self.place("new").u32(0, *attributes))

    def test_a_linked_file_outlives_its_name(self):
        self.exclusive(b"12345678")
        node = self.root.names["new"]
        self.call("LINK", Packer().opaque(node.handle).fixed(self.place("second").bytes()))
        self.call("REMOVE", self.place("new"))
        self.assertIs(self.server.tree.by_handle(node.handle), node)
        self.call("REMOVE", self.place("second"))
        self.assertIsNone(self.server.tree.by_handle(node.handle))
        with self.assertRaisesRegex(Failure, "NOENT"):
            self.call("REMOVE", self.place("second"))

    def test_rename_replaces(self):
        self.exclusive(b"12345678")
        node = self.root.names["new"]
        old = self.server.tree.make_file("/old")
        self.call("RENAME", Packer().fixed(self.place("new").bytes())
                  .fixed(self.place("old").bytes()))
        self.assertIs(self.root.names["old"], node)
        self.assertIsNone(self.server.tree.by_handle(old.handle))


class Rules(unittest.TestCase):
    """script.py"""

    def fired(self, rules, calls):
        script = Script(rules, {"cut", "delay"}, pings=("PING",))
        return [[rule.text for rule in script.next(call)[1]] for call in calls]

    def test_counts(self):
        calls = ["READ", "PING", "WRITE", "READ", "READ", "READ"]
        for rule, expected in (("READ 2: cut", [3]), ("READ 2-3: cut", [3, 4]),
                               ("READ 3-: cut", [4, 5]), ("READ: cut", [0, 3, 4, 5]),
                               ("any 2: cut", [2]), ("PING 1: cut", [1]), ("WRITE 2: cut", [])):
            fired = self.fired([rule], calls)
            self.assertEqual([at for at, rules in enumerate(fired) if rules], expected, rule)

    def test_two_for_one_call(self):
        self.assertEqual(self.fired(["READ 1: delay 5", "any: cut"], ["READ"]),
                         [["READ 1: delay 5", "any: cut"]])

    def test_nonsense(self):
        for rule in ("READ 1 cut", "READ x: cut", "READ 1: melt", ""):
            with self.assertRaises(ValueError, msg=rule):
                Script([rule], {"cut"}, ())

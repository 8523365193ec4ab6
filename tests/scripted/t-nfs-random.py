# SPDX-License-Identifier: LGPL-2.1-or-later
"""NFS: many faults, in random rows. The bytes are right, or there is a clean error; never a hang, never
a crash, never a file under its name that is not the image.

SCRIPTED_SEED chooses the rows, SCRIPTED_ROWS how many; a failure prints its seed and its rules.
"""

import os
import random

import nfs

SEED = int(os.environ.get("SCRIPTED_SEED") or 1)
ROWS = int(os.environ.get("SCRIPTED_ROWS") or 100)
# What may pass: a copy gets over these.
PASSING = ("cut before", "cut after", "cut half", "cut reset", "restart", "forget", "close 30",
           "delay 40", "garbage stream", "status JUKEBOX", "hold 3")
FATAL = ("status NOSPC", "status IO", "status STALE", "garbage body", "stale", "status ACCES")
ONLY = {"READ": ("short 4096", "short 100001", "eof", "touch"),
        "WRITE": ("short 4096", "short 100001", "verifier", "sync"),
        "COMMIT": ("verifier",)}


class Random(nfs.NfsCase):
    """ROWS rows over both directions, in four tests that run side by side."""

    def rules(self, calls, chance):
        """One to six rules, and whether all of them may pass."""
        rules, passing = [], True
        for _ in range(chance.randint(1, 6)):
            call = chance.choice(calls)
            fatal = chance.random() < 0.08
            actions = FATAL if fatal else PASSING + ONLY.get(call, ())
            action = chance.choice(actions)
            number = chance.randint(1, 12 if call in ("READ", "WRITE", "any") else 2)
            rules.append(f"{call} {number}: {action}")
            passing &= not fatal and action not in ("eof", "touch")
            if chance.random() < 0.2:
                rules.append(f"connect {chance.randint(2, 5)}: refuse")
        return rules, passing

    def row(self, seed):
        chance = random.Random(seed)
        reading, replacing = chance.random() < 0.4, chance.random() < 0.5
        calls = ["any", "READ"] if reading else ["any", "WRITE", "WRITE", "COMMIT", "CREATE",
                                                 "SETATTR", "RENAME" if replacing else "LINK",
                                                 "REMOVE"]
        rules, passing = self.rules(calls, chance)
        with self.at(SCRIPTED_SEED=seed, reading=reading, replacing=replacing, rules=rules):
            (self.read if reading else self.write)(rules, passing, replacing)

    def options(self):
        return "--timeout", 2, "--give-up", 60

    def ended(self, result, server, passing):
        """0, or an error that is one; with faults that pass, only where no end was open yet."""
        self.assertIn(result.status, (0, 2, 3), result)
        if result.status == 0:
            return True
        self.assertTrue(result.err, result)
        if passing:
            self.assertEqual(server.log("READ", "CREATE"), [], f"not in vain: {result}")
        return False

    def read(self, rules, passing, _):
        self.clear_copy()
        server = self.serve("--file", "/export/image=image", *rules)
        result = self.read_copy(server, *self.options(), status=None)
        server.stop()
        if self.ended(result, server, passing):
            self.same("image", "copy")
        else:
            self.no_copy(result)

    def write(self, rules, passing, replacing):
        old = ["--file", "/export/image=old"] if replacing else []
        server = self.serve(*old, *rules)
        options = ["--overwrite"] if replacing else []
        result = self.write_copy(server, *options, *self.options(), status=None)
        names = server.command("list")
        server.command(f"dump {self.path('stable')}")
        server.stop()
        self.path("stable/export").mkdir(parents=True, exist_ok=True)
        if self.ended(result, server, passing):
            # What cannot be removed stays, and is said.
            if passing:
                self.assertEqual(list(names), ["/export/image"])
            self.same("image", "stable/export/image")
        elif "/export/image" in names:
            # An answer may have been lost for good. Then it is either file, whole.
            stored = self.path("stable/export/image").read_bytes()
            whole = [self.path(name).read_bytes() for name in ("image", "old")[:1 + replacing]]
            self.assertIn(stored, whole)

    def quarter(self, number):
        self.image("image", nfs.SIZE)
        self.image("old", nfs.CHUNK)
        for seed in range(SEED + number, SEED + ROWS, 4):
            self.row(seed)

    def test_first_quarter(self):
        self.quarter(0)

    def test_second_quarter(self):
        self.quarter(1)

    def test_third_quarter(self):
        self.quarter(2)

    def test_fourth_quarter(self):
        self.quarter(3)

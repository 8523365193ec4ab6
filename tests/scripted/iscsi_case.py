# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests against the scripted iSCSI target share."""

import harness

NAME = "iqn.2003-01.org.lunferry:scripted"
MIB = 1 << 20
GRANULE = 256 << 10  # of small images, src/copy/tracker.h
HEAD = MIB  # of a LUN: blanked first, written last


class Case(harness.Case):
    """A test with tests/servers/iscsi.py."""

    SIZE = 3 * MIB
    # So that a test of something that does not work ends before it hangs. An option given later counts.
    PATIENCE = ("--give-up", 60)

    def target(self, *arguments):
        return self.start("iscsi.py", *arguments)

    def url(self, server, lun=0, query="", ports=None):
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports or [server.port])
        return f"iscsi://{hosts}/{NAME}/{lun}" + (query and "?" + query)

    def stored(self, server, name, lun=0):
        """Stable storage begins with the content of the file."""
        server.command(f"save {lun} {self.path('stable')}")
        self.starts_with("stable", name)

    def starts_with(self, long, short):
        data = self.path(short).read_bytes()
        with open(self.path(long), "rb") as file:
            got = file.read(len(data))
        if got != data:
            at = next((i for i, (x, y) in enumerate(zip(got, data)) if x != y), len(got))
            self.fail(f"{long} differs from {short} at {at} ({at / GRANULE:.2f} granules)")

    # ---- Copies with faults -------------------------------------------------------------------

    def fresh_image(self):
        if not self.path("image").exists():
            self.image("image", self.SIZE)

    def to_lun(self, *rules, options=(), status=0, query="", ports=False):
        """Copies "image" to a target with these options and rules. Returns (server, result)."""
        self.fresh_image()
        server = self.target(*rules)
        url = self.url(server, query=query, ports=server.command("ports") if ports else None)
        result = self.copy(*self.PATIENCE, *options, "image", url, status=status)
        if result.status == 0:
            self.stored(server, "image")
            self.head_is_last(server)
        self.have_fired(server, rules, status)
        return server, result

    def from_lun(self, *rules, options=(), status=0, query=""):
        """Copies a LUN that holds "image" to the file "back"."""
        self.fresh_image()
        server = self.target("--lun", f"0 size={self.SIZE} image={self.path('image')}", *rules)
        self.path("back").unlink(missing_ok=True)
        result = self.copy(*self.PATIENCE, *options, self.url(server, query=query), "back",
                           status=status)
        if result.status == 0:
            self.same("image", "back")
        else:
            self.assertFalse(self.path("back").exists(), str(result))
        self.have_fired(server, rules, status)
        return server, result

    def have_fired(self, server, rules, status):
        """Each rule was applied: a fault that does not happen tests nothing."""
        if status is None:
            return
        fired = {rule for entry in server.log() for rule in entry["fault"] or ()}
        idle = [rule for rule in rules if ": " in str(rule) and rule not in fired]
        # Connections are not in the log.
        self.assertEqual([rule for rule in idle if not rule.startswith("connect")], [])

    # ---- What the log says --------------------------------------------------------------------

    def writes(self, server):
        """(first byte, end, entry) of each WRITE and WRITE SAME that was executed."""
        return [(e["lba"] * 512, (e["lba"] + e["blocks"]) * 512, e)
                for e in server.log("WRITE", "WRITE_SAME") if e["executed"]]

    def head_is_last(self, server):
        """Between the blanking of the head, which comes first, and its writing nothing of it is
        written, and after that nothing else."""
        heads = "".join("h" if start < HEAD else "b" for start, _, _ in self.writes(server))
        self.assertRegex(heads, "^h+b*h+$")

    def lost_and_repeated(self, server):
        """Two sets of granules behind the head: those that nobody had flushed who knows of it when the
        power was lost, and those that were written again. A lane knows of its own flushes only."""
        cached, lost, written, repeated = {}, set(), set(), set()
        for entry in server.log("WRITE", "SYNC"):
            isid, granule = entry["isid"], (entry["lba"] or 0) * 512 // GRANULE
            if any("power_loss" in rule for rule in entry["fault"] or ()):
                lost |= set().union(*cached.values())
                cached = {}
            if not entry["executed"]:
                continue
            if entry["call"] == "SYNC":
                cached[isid] = set()
            elif granule * GRANULE >= HEAD:
                if granule in written:
                    repeated.add(granule)
                written.add(granule)
                if not entry["fua"]:
                    cached.setdefault(isid, set()).add(granule)
        return lost, repeated

    def one_isid(self, server):
        """All logins had the same ISID, and all but the first reinstated the session."""
        logins = [e for e in server.log("LOGIN") if e["status"] == "0/0"]
        self.assertEqual(len({e["isid"] for e in logins}), 1)
        self.assertEqual([e["reinstated"] for e in logins], [False] + [True] * (len(logins) - 1))
        return len(logins)

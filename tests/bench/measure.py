# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the benchmarks share: where things are, the lab's functions, the measure of a command."""

import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
LUNFERRY = os.path.join(ROOT, os.environ.get("BUILD", "build"), "lunferry")


def shell(script):
    """Runs a line with the lab's functions at hand."""
    return subprocess.run(["bash", "-euc", '. "$LAB_LIB"; ' + script], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()


def remove(name):
    """The server keeps a file open for a while; if it is not emptied first, its memory is not free
    again, and every run pays for pages that the machine has never touched."""
    if os.path.exists(name):
        os.truncate(name, 0)
        os.unlink(name)


def timed(command, limit=None, output=None):
    """By time(1), a small program: a child's peak memory starts from that of what it was forked from.
    None: it did not end within the limit, in seconds."""
    with tempfile.NamedTemporaryFile("r") as figures:
        started = time.monotonic()
        bounded = ["timeout", str(limit)] + command if limit else command
        status = subprocess.run(["/usr/bin/time", "-f", "%U %S %M", "-o", figures.name] + bounded,
                                stdout=output)
        wall = time.monotonic() - started
        if limit and status.returncode == 124:
            return None
        if status.returncode != 0:
            sys.exit(f"failed: {' '.join(command)}")
        user, system, memory = figures.read().split()
    return {"wall": wall, "cpu": float(user) + float(system), "memory": int(memory) * 1024}


def median_of(runs, key):
    return statistics.median(run[key] for run in runs)


def version(command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\n")[0]

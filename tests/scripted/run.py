#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/scripted/run.py [PATTERN...]

Runs the scripted tests (harness.py) whose names, "nfs.Reads.test_short", match one of the regular
expressions; all without one. JOBS run side by side (the number of cores). Prints each test's outcome
and, at the end, "N passed, N failed, N skipped"; SCRIPTED_COUNTS, if set, is a file that gets the
three numbers. LUNFERRY is the program.
"""

import concurrent.futures
import importlib.util
import os
import pathlib
import re
import signal
import sys
import traceback
import unittest

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import harness  # noqa: E402  pylint: disable=wrong-import-position


def tests_of(path):
    """The tests in a file t-NAME.py."""
    name = path.stem.removeprefix("t-")
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for suite in unittest.defaultTestLoader.loadTestsFromModule(module):
        for test in suite:
            yield name + "." + test.id().split(".", 1)[1], test


def run(test):
    """Returns the outcome, and why it is not "ok"."""
    result = unittest.TestResult()
    try:
        test.run(result)
    except Exception:  # what must not end the run: a fault of the harness itself
        return "FAILED", traceback.format_exc()
    if result.errors or result.failures:
        return "FAILED", "\n".join(text for _, text in result.errors + result.failures)
    if result.unexpectedSuccesses:
        return "FAILED", "it was expected to fail, and did not"
    if result.skipped:
        return "SKIPPED", result.skipped[0][1]
    return "ok", ""


def interrupted(number, _):
    harness.end_at_once()
    os._exit(128 + number)


def main():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    patterns = sys.argv[1:] or [""]
    tests = [(name, test) for path in sorted(HERE.glob("t-*.py")) for name, test in tests_of(path)
             if any(re.search(pattern, name) for pattern in patterns)]
    counts = {"ok": 0, "FAILED": 0, "SKIPPED": 0}
    failed = []
    jobs = int(os.environ.get("JOBS") or os.cpu_count() or 1)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run, test): name for name, test in tests}
        for future in concurrent.futures.as_completed(running):
            name = running[future]
            outcome, why = future.result()
            counts[outcome] += 1
            if outcome == "FAILED":
                failed.append(name)
            print(f"{outcome:7} {name}", flush=True)
            if why:
                print("\n".join("    " + line for line in why.rstrip().splitlines()), flush=True)
    if failed:
        print(f"failed: {' '.join(sorted(failed))}")
    numbers = tuple(counts.values())
    print("scripted: %d passed, %d failed, %d skipped" % numbers)
    if "SCRIPTED_COUNTS" in os.environ:
        pathlib.Path(os.environ["SCRIPTED_COUNTS"]).write_text("%d %d %d\n" % numbers)
    return 1 if failed or not counts["ok"] else 0


try:
    sys.exit(main())
finally:
    harness.clean()

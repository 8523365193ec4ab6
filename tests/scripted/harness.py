# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the scripted tests share.

A test is a method test_* of a class derived from Case, in a file t-*.py beside this one:

    class Reads(harness.Case):
        def test_short(self):
            self.image("image", 2 << 20)
            server = self.start("nfs3.py", "--file", "/image=image", "READ 3: short 4096")
            self.copy(url(server, "image"), "copy")
            self.same("image", "copy")

Each runs in a directory of its own, where relative paths of all commands begin and which goes
afterwards; whatever it has started is ended. Tests run side by side, as anyone, on ports that the
kernel chooses. A time limit is there only so that nothing hangs for ever: no test asserts a time.

LUNFERRY is the program (build/lunferry); tests/servers has the servers.
"""

import contextlib
import json
import os
import pathlib
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LUNFERRY = pathlib.Path(os.environ.get("LUNFERRY") or ROOT / "build" / "lunferry").resolve()
# Seconds. Much more than anything takes, under a sanitizer on a busy machine too.
HANG = 300
# All directories of this run are in one, and all that was started is here: see end_at_once().
TOP = pathlib.Path(tempfile.mkdtemp(prefix="lunferry-scripted-"))
STARTED = set()


def popen(command, **arguments):
    process = subprocess.Popen(command, **arguments)
    STARTED.add(process)
    return process


def clean():
    shutil.rmtree(TOP, ignore_errors=True)


def end_at_once():
    """For a run that is interrupted: nothing that it has started stays."""
    for process in list(STARTED):
        if process.returncode is None:
            process.kill()
    clean()


class Result:
    """How a run of lunferry ended."""

    def __init__(self, arguments, status, out, err):
        self.arguments, self.status, self.out, self.err = arguments, status, out, err

    def __str__(self):
        said = "".join(f"    | {line}\n" for line in self.err.splitlines())
        return f"exit status {self.status}: lunferry {' '.join(self.arguments)}\n{said}"


class Server:
    """A scripted server, running."""

    def __init__(self, directory, number, program, arguments):
        self.log_path = directory / f"server{number}.log"
        self.err_path = directory / f"server{number}.err"
        command = [sys.executable, "-B", str(ROOT / "tests" / "servers" / program),
                   "--log", str(self.log_path), *map(str, arguments)]
        with open(self.err_path, "wb") as err:
            # Its standard input ends with us, however we end, and the server with that.
            self.process = popen(command, cwd=directory, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=err, text=True)
        line = self._answer()
        if not line.startswith("port "):
            self.stop()
            raise AssertionError(f"{program} did not start: {line}{self.err_path.read_text()}")
        self.port = int(line.split()[1])

    def _answer(self):
        # One line is outstanding at most, so that nothing hides in a buffer from select().
        if not select.select([self.process.stdout], [], [], HANG)[0]:
            self.process.kill()
        return self.process.stdout.readline()

    def command(self, text):
        """Sends a command; returns its answer, None for "ok"."""
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        answer = self._answer().strip()
        if not answer or answer.startswith("error "):
            raise AssertionError(f"{text}: {answer}{self.err_path.read_text()}")
        return None if answer == "ok" else json.loads(answer)

    def log(self, *calls):
        """The entries of the log so far, of these calls or of all."""
        entries = [json.loads(line) for line in self.log_path.read_text().splitlines()]
        return [entry for entry in entries if not calls or entry["call"] in calls]

    def stop(self):
        """Ends it. Returns what it wrote to its standard error, which should be nothing."""
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(HANG)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        return self.err_path.read_text()


class Case(unittest.TestCase):
    """A test with servers."""

    hang = HANG  # for a run of lunferry

    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(dir=TOP))
        self.addCleanup(shutil.rmtree, self.directory)
        self.servers = []
        self.runs = []
        # Cleanups run in the reverse order: servers end before their directory goes.
        self.addCleanup(self._stop_all)

    def _stop_all(self):
        for run in self.runs:
            if run.poll() is None:
                run.kill()
                run.communicate()
        complaints = [server.stop() for server in self.servers]
        for complaint in filter(None, complaints):
            self.fail(f"a server complained:\n{complaint}")

    @contextlib.contextmanager
    def at(self, **where):
        """One round of a loop: a failure in it says where. The first one ends the test, so that one
        which hangs does not hang in every round."""
        try:
            yield
        except Exception as error:
            error.add_note(f"at {where}")
            raise

    def path(self, name):
        return self.directory / name

    # ---- Servers ------------------------------------------------------------------------------

    def start(self, program, *arguments):
        """Starts tests/servers/PROGRAM with options and rules; it accepts connections when this
        returns."""
        server = Server(self.directory, len(self.servers) + 1, program, arguments)
        self.servers.append(server)
        return server

    # ---- Lunferry -----------------------------------------------------------------------------

    def pipe_from(self, name):
        """The end of a pipe out of which the bytes of a file come; the caller's to close."""
        writer = popen(["cat", str(self.path(name))], stdout=subprocess.PIPE)

        def end():
            writer.kill()
            writer.wait()

        self.addCleanup(end)
        return writer.stdout

    def begin(self, *arguments, feed=None):
        """Starts lunferry, with the bytes of the file `feed` coming in on stdin; a subprocess.Popen. To
        be ended by finish()."""
        arguments = [str(argument) for argument in arguments]
        # Journals of copies that take long stay among the test's own files.
        environment = dict(os.environ, XDG_STATE_HOME=str(self.directory / "state"))
        stdin = self.pipe_from(feed) if feed else None
        run = popen([str(LUNFERRY), *arguments], cwd=self.directory,
                    stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, text=True, errors="replace", env=environment)
        if stdin:
            stdin.close()
        run.given = arguments
        self.runs.append(run)
        return run

    def finish(self, run):
        """Waits for its end. One that hangs, crashes or is told off by a sanitizer is a failure."""
        hung = False
        try:
            out, err = run.communicate(timeout=self.hang)
        except subprocess.TimeoutExpired:
            hung = True
            run.kill()
            out, err = run.communicate()
        result = Result(run.given, run.returncode, out, err)
        if hung:
            self.fail(f"hung: {result}")
        if result.status < 0 or re.search(r"Sanitizer|runtime error:|Assertion", err):
            self.fail(f"crashed: {result}")
        return result

    def lunferry(self, *arguments, status=0, feed=None):
        """Runs lunferry, which is to end with this status (None: any); a Result."""
        result = self.finish(self.begin(*arguments, feed=feed))
        if status is not None and result.status != status:
            self.fail(f"not {status}: {result}")
        return result

    def copy(self, *arguments, status=0, feed=None):
        """Raw, and said to be: a look at what a source begins with would be one more READ."""
        return self.lunferry("copy", "-q", "-f", "raw", *arguments, status=status, feed=feed)

    def says(self, result, pattern):
        """A line of its standard error matches the regular expression."""
        if not re.search(pattern, result.err, re.MULTILINE):
            self.fail(f"did not say {pattern!r}: {result}")

    # ---- Files --------------------------------------------------------------------------------

    def image(self, name, size):
        """A file of bytes that do not compress, other ones for each name and each 8 bytes."""
        seed = sum(name.encode()) + 1
        self.lunferry("copy", "-q", "--overwrite", f"random:{size}?seed={seed}", name)

    def same(self, first, second):
        a, b = self.path(first).read_bytes(), self.path(second).read_bytes()
        if a == b:
            return
        at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
        self.fail(f"{first} ({len(a)} bytes) and {second} ({len(b)} bytes) differ at {at}")

    def wait_until(self, condition, what):
        """For what a server has to notice before the test goes on."""
        give_up = time.monotonic() + HANG
        while not condition():
            if time.monotonic() > give_up:
                self.fail(f"waited in vain until {what}")
            time.sleep(0.01)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What lunferry makes of an image, beside what qemu-img makes of it."""

import collections
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import sparse  # noqa: E402  pylint: disable=wrong-import-position

# Fresh memory is filled, so that zeros which nobody has made show.
os.environ.setdefault("MALLOC_PERTURB_", "165")

MIB = 1 << 20
LUNFERRY = shlex.split(os.environ.get("LUNFERRY", "build/lunferry"))
HANG = 600  # seconds; only what hangs takes so long, on whatever machine
FILL = 0xAA
TAIL = 4096 + 7  # bytes behind the image, in a file that is written in place
FILL_MOST = 32 * MIB
# What a damaged image may make the program take, in address space and in what it really uses.
MEMORY_ASKED = 2048 * MIB
MEMORY_USED = 256 * MIB


class Wrong(Exception):
    """A sentence that says what disagrees."""


def is_sanitized():
    """Sanitizers reserve terabytes of address space, and have a memory of their own."""
    with open(LUNFERRY[0], "rb") as file:
        return b"__asan_init" in file.read()


def outcome(command, bounded=False, cwd=None):
    """(status, stdout, stderr, peak memory) of a command; None as status: it did not end."""
    if bounded:
        command = ["prlimit", f"--as={MEMORY_ASKED}"] + command
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        # Not subprocess's own waiting: of one process, not of all that ever were, is the peak wanted.
        process = subprocess.Popen(  # pylint: disable=consider-using-with
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd)
        ended = threading.Event()
        late = threading.Timer(HANG, lambda: (ended.set(), process.kill()))
        late.start()
        _, status, usage = os.wait4(process.pid, 0)
        late.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return (None if ended.is_set() else process.returncode), *texts, usage.ru_maxrss * 1024


def run(command, cwd=None):
    status, out, err, _ = outcome(command, cwd=cwd)
    if status != 0:
        raise Wrong(f"{shlex.join(command)}: status {status}\n{err}")
    return out, err


def lunferry(*words):
    out, err = run(LUNFERRY + list(words))
    return out, err


def qemu_raw(image, image_format, target, snapshot=None):
    """The bytes of an image, by qemu-img."""
    chosen = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
    run(["qemu-img", "convert", "-f", image_format, "-O", "raw", *chosen, os.path.basename(image),
         target], beside(image))


def beside(image):
    """Where qemu is to be: to that the name of a data file is relative, not to where the image is."""
    return os.path.dirname(image)


# ---- bytes --------------------------------------------------------------------------------------

def compare_files(expected, got, odd, what):
    """The same bytes, and no more of them. qemu-img leaves out what is no whole sector (`odd`); it does
    not have to be left out."""
    with open(expected, "rb") as a, open(got, "rb") as b:
        size, other = os.fstat(a.fileno()).st_size, os.fstat(b.fileno()).st_size
        if size != other and not (odd and size < other < size + 512):
            raise Wrong(f"{what}: {other} bytes, qemu-img has {size}")
        for file in (a, b):
            for start, end in sparse.data_ranges(file.fileno(), size):
                where = sparse.first_difference(a.fileno(), b.fileno(), start, end)
                if where is not None:
                    x, y = (os.pread(f.fileno(), 1, where)[0] for f in (a, b))
                    raise Wrong(f"{what}: at offset {where} 0x{y:02x}, qemu-img has 0x{x:02x}")


def fill(path, size):
    with open(path, "wb") as file:
        for start in range(0, size, MIB):
            file.write(bytes([FILL]) * min(MIB, size - start))


def check_tail(path, start, what):
    """What lies behind the image is as it was."""
    with open(path, "rb") as file:
        file.seek(start)
        rest = file.read()
    if len(rest) != TAIL or rest.strip(bytes([FILL])):
        raise Wrong(f"{what}: what lies behind the image was changed")


# ---- maps ---------------------------------------------------------------------------------------

def extents(text, size):
    """A map as lists [start, end, depth, zero, offset or None], with all neighbours joined that can be.
    An offset counts where there is data: that of zeros is of no use."""
    result = []
    at = 0
    for entry in json.loads(text):
        start, end = entry["start"], entry["start"] + entry["length"]
        if start != at or end <= start:
            raise Wrong(f"a map that goes from {at} to {start}: {entry}")
        at = end
        if start >= size:
            break  # a part of a sector, of which qemu-img knows nothing
        end = min(end, size)
        data = entry["data"] or not entry["zero"]
        # With preallocation=metadata qemu-img looks for holes in the file below: data and zero at once.
        offset = entry.get("offset") if data else None
        new = [start, end, entry["depth"], not data, offset]
        last = result[-1] if result else None
        if last and last[2:4] == new[2:4] and (
                last[4] is None and offset is None
                or None not in (last[4], offset) and last[4] + start - last[0] == offset):
            last[1] = end
        else:
            result.append(new)
    return result


def describe(extent):
    if extent is None:
        return "nothing"
    start, end, depth, zero, offset = extent
    return f"{start}+{end - start} {'zeros' if zero else 'data'}, depth {depth}, offset {offset}"


def compare_maps(expected, got):
    for a, b in zip(expected + [None], got + [None]):
        if a != b:
            raise Wrong(f"map: {describe(b)}, qemu-img has {describe(a)}")


def check_zeros(ranges, raw, what):
    """What a map calls zeros is zeros."""
    with open(raw, "rb") as file:
        nothing = os.open("/dev/null", os.O_RDONLY)
        for start, end, _, zero, _ in ranges:
            for first, last in sparse.data_ranges(file.fileno(), end) if zero else []:
                if last > start and sparse.first_difference(
                        file.fileno(), nothing, max(first, start), last) is not None:
                    os.close(nothing)
                    raise Wrong(f"{what}: {start}+{end - start} is called zeros, and is not")
        os.close(nothing)


# ---- an image -----------------------------------------------------------------------------------

class Seen(collections.Counter):
    """What there was in all the images: a matrix that never meets a thing shows nothing about it."""

    def note_map(self, text):
        for entry in json.loads(text):
            if entry["data"]:
                self["data"] += 1
                self["compressed"] += "offset" not in entry
                self["data of a backing file"] += entry["depth"] > 0
            elif entry["present"]:
                self["zero clusters"] += 1
            else:
                self["unallocated"] += 1

    def missing(self):
        return [word for word in ["data", "compressed", "data of a backing file", "zero clusters",
                                  "unallocated", "snapshots", "qcow", "raw base", "data file",
                                  "extended L2", "written in place"] if not self[word]]


class Judge:
    """Compares one image, as lunferry and as qemu-img are told of it (`endpoint` and `path`)."""

    def __init__(self, work, seen):
        self.work = work
        self.seen = seen

    def file(self, name):
        return os.path.join(self.work, name)

    def check(self, endpoint, path, image_format, odd=False, snapshots=(), options=(), turn=0,
              tells=True):
        """tells: where a raw file has holes can be told, by where it lies."""
        how = ["-f", image_format, *options]
        raw = self.file("qemu.raw")
        qemu_raw(path, image_format, raw)
        size = os.stat(raw).st_size
        self.copy(endpoint, how, raw, odd, turn)
        if size <= FILL_MOST:
            self.copy_in_place(endpoint, how, raw, odd, turn)
        self.map(endpoint, path, image_format, how, raw, tells)
        if not odd and size <= FILL_MOST:
            lunferry("compare", "--strict", *how, endpoint, raw)
        for snapshot, then in snapshots:
            self.snapshot(endpoint, path, image_format, how, snapshot, then)

    def copy(self, endpoint, how, raw, odd, turn):
        words = [[], ["--lanes", "3"], ["--verify"], ["--lanes", "3", "--verify", "-S", "0"]][turn % 4]
        target = self.file("ours.raw")
        lunferry("copy", "-q", "--overwrite", *how, *words, endpoint, target)
        compare_files(raw, target, odd, shlex.join(["copy", *words]))
        os.unlink(target)

    def copy_in_place(self, endpoint, how, raw, odd, turn):
        """Where the image has zeros, what was there before must not show through."""
        words = [["--lanes", "3"], []][turn % 2]
        target = self.file("place.raw")
        size = os.stat(raw).st_size
        fill(target, size + TAIL)
        lunferry("copy", "-q", "-n", "--overwrite", *how, *words, endpoint, target)
        if not odd:
            check_tail(target, size, "copy -n")
        os.truncate(target, size)
        compare_files(raw, target, False, "copy -n")
        os.unlink(target)
        self.seen["written in place"] += 1

    def map(self, endpoint, path, image_format, how, raw, tells):
        size = os.stat(raw).st_size
        qemu, _ = run(["qemu-img", "map", "--output=json", "-f", image_format,
                       os.path.basename(path)], beside(path))
        self.seen.note_map(qemu)
        ours = extents(lunferry("map", "--json", *how, endpoint)[0], size)
        if tells:
            compare_maps(extents(qemu, size), ours)
        check_zeros(ours, raw, "map")

    def snapshot(self, endpoint, path, image_format, how, snapshot, size):
        """qemu-img gives a snapshot the size that the disk has now; it has the one that it had then."""
        raw, target = self.file("qemu.snapshot"), self.file("ours.snapshot")
        qemu_raw(path, image_format, raw, snapshot)
        lunferry("copy", "-q", "--overwrite", *how, "-l", snapshot, endpoint, target)
        both = min(size, os.stat(raw).st_size)
        if os.stat(target).st_size != size:
            raise Wrong(f"copy -l '{snapshot}': {os.stat(target).st_size} bytes, not {size}")
        os.truncate(raw, both)
        os.truncate(target, both)
        compare_files(raw, target, False, f"copy -l '{snapshot}'")
        lunferry("copy", "-q", "--overwrite", *how, "-l", snapshot, endpoint, raw)
        check_zeros(extents(lunferry("map", "--json", *how, "-l", snapshot, endpoint)[0], size), raw,
                    f"map -l '{snapshot}'")
        self.seen["snapshots"] += 1


def judge_damaged(image, image_format, work, how, sanitized):
    """A damaged image is read, or refused with a sentence. Returns the status."""
    target = os.path.join(work, "damaged.raw")
    if os.path.exists(target):
        os.unlink(target)
    command = LUNFERRY + ["copy", "-q", "-f", image_format, *how, image, target]
    status, _, err, peak = outcome(command, bounded=not sanitized)
    if status is None:
        raise Wrong(f"does not end: {shlex.join(command)}")
    if status < 0:
        raise Wrong(f"ended by {signal.Signals(-status).name}: {shlex.join(command)}\n{err}")
    if status not in (0, 2, 3) or "Sanitizer" in err:
        raise Wrong(f"status {status}: {shlex.join(command)}\n{err}")
    if status != 0 and not err.startswith("lunferry: "):
        raise Wrong(f"status {status} without a sentence: {shlex.join(command)}\n{err}")
    if not sanitized and peak > MEMORY_USED:
        raise Wrong(f"{peak >> 20} MiB of memory: {shlex.join(command)}")
    return status, target, err

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is copied into a qcow2 image, and what that is to be like: by chance, and the same for the same seed."""

import itertools
import os
import shutil
import subprocess

from recipe import GIB, KIB, MIB, SECTOR, round_to

HERE = os.path.dirname(os.path.realpath(__file__))
DEFAULT_CHUNK = 512 * KIB
PAGE = 4 * KIB  # what -S finds
MOST = {512: MIB, 4 * KIB: 2 * MIB, 16 * KIB: 4 * MIB, 64 * KIB: 6 * MIB, 2 * MIB: 12 * MIB}
RUNS = 16       # a chunk becomes no more of them (src/copy/runs.h)

# What an image can differ in. With each pair of values there is a case, as far as they go together.
AXES = {
    "cluster": [512, 4 * KIB, 16 * KIB, 64 * KIB, 2 * MIB],
    "codec": ["", "zlib", "zstd", "zlib:6", "zstd:9"],
    "base": ["", "raw same", "raw shorter", "raw longer", "qcow2 same", "qcow2 shorter", "qcow2 longer"],
    "order": [[], ["--in-order"]],
    "lanes": [1, 2, 4],
    "size": ["1", "511", "513", "65537", "sectors", "clusters", "odd", "wide"],
    "content": ["zeros", "random", "filesystem", "mixed"],
    "compat": ["0.10", "1.1"],
    "extended": [False, True],
    "bits": [1, 8, 16, 64],
    "words": [[], ["-S", "0"], ["--request-size", "2M"], ["-m", "1"], ["--sync"]],
}


class Case:
    """One image, and how it is asked for."""

    def __init__(self, **words):
        self.__dict__.update({name: values[0] for name, values in AXES.items()}, bits=16,
                             compat="1.1", cluster=64 * KIB, size="sectors")
        self.__dict__.update(words)
        self.settle()

    def settle(self):
        """Leaves out what is refused, or would take too long."""
        if self.compat == "0.10":
            self.extended, self.bits = False, 16
            self.codec = self.codec.replace("zstd:9", "zlib").replace("zstd", "zlib")
        if self.cluster < 16 * KIB:
            self.extended = False
        if self.codec and self.bits < 16:
            self.bits = 16
        if self.size == "wide" and self.cluster < 64 * KIB:
            self.size = "odd"
        if self.size == "wide" and self.content != "zeros":
            self.content = "mixed"
        if self.size == "wide" and self.compat == "0.10" and self.base:
            self.size = "sectors"  # where the base has data, there would be zeros as data
        if self.content == "filesystem" and self.size.isdigit():
            self.size = "odd"
        if "-S" in self.words and self.size == "wide":
            self.words = []
        if self.order:
            self.lanes = 1

    @property
    def is_exact(self):
        """Is what is left out told to the cluster?"""
        chunk = max(DEFAULT_CHUNK, self.cluster, 2 * MIB if "--request-size" in self.words else 0)
        return chunk // self.cluster <= RUNS and "-S" not in self.words

    def properties(self):
        words = [f"cluster_size={self.cluster}", f"compat={self.compat}", f"refcount_bits={self.bits}"]
        if self.extended:
            words.append("extended_l2=on")
        return ",".join(words)

    def options(self, base):
        """Of `lunferry copy`."""
        words = ["-O", "qcow2", "-o", self.properties(), *self.order, "--lanes", str(self.lanes),
                 *self.words]
        if self.codec == "zstd":
            words.append("-c")
        elif self.codec:
            words += ["--compression", self.codec]
        return words + (["-B", base, "-F", self.base.split()[0]] if base else [])

    def bytes(self, rng):
        """Of the disk."""
        if self.size.isdigit():
            return int(self.size)
        if self.size == "wide":
            # More than one L2 table, sparse.
            return round_to(rng.uniform(1.1, 1.4) * (GIB if self.cluster < MIB else 700 * GIB), SECTOR) + 7
        most = MOST[self.cluster]
        size = rng.randint(max(most // 4, SECTOR), most)
        if self.size == "odd":
            return size | 1
        return max(round_to(size, SECTOR if self.size == "sectors" else self.cluster), self.cluster)

    def __str__(self):
        return " ".join(f"{name}={vars(self)[name]}" for name in AXES)


def pairs(case):
    """All pairs of values that it shows together."""
    values = [(name, str(vars(case)[name])) for name in AXES]
    return set(itertools.combinations(values, 2))


def pairwise(rng, count):
    """`count` cases, each of which shows as many pairs as can be found that none before it shows."""
    cases, shown = [], set()
    for _ in range(count):
        candidates = [Case(**{name: rng.choice(values) for name, values in AXES.items()})
                      for _ in range(40)]
        best = max(candidates, key=lambda case: len(pairs(case) - shown))
        cases.append(best)
        shown |= pairs(best)
    return cases


# ---- bytes --------------------------------------------------------------------------------------

def piece(rng, length):
    """Of some kind, as it compresses well, hardly, or not at all."""
    kind = rng.choice(["random", "words", "one byte", "zeros"])
    if kind == "random":
        return rng.randbytes(length)
    if kind == "words":
        text = b" ".join(rng.choices([b"lun", b"sense", b"cluster", b"\0\0", rng.randbytes(5)], k=2000))
        return (text * (length // len(text) + 1))[:length]
    return bytes([rng.randrange(1, 256) if kind == "one byte" else 0]) * length


def change(path, rng, count, unit):
    """Pieces are written here and there, and holes made."""
    size = os.stat(path).st_size
    with open(path, "r+b") as file:
        for _ in range(count):
            first = rng.randrange(size)
            if rng.random() < .5:
                first = round_to(first, rng.choice([SECTOR, PAGE, unit]))
            length = min(rng.choice([1, SECTOR, PAGE, unit, unit * 3, rng.randint(1, 200 * KIB)]),
                         size - first, MIB)
            if rng.random() < .2:
                subprocess.run(["fallocate", "-p", "-o", str(first), "-l", str(length), path], check=True)
                continue
            file.seek(first)
            file.write(piece(rng, length))
            file.flush()


def make_filesystem(path, size):
    """A real one; its own names and times are always the same."""
    with open(path, "wb") as file:
        file.truncate(max(round_to(size, PAGE), MIB))
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-b", "1024", "-d", HERE,
         "-U", "6c756e66-6572-7279-0000-000000000001",
         "-E", "hash_seed=6c756e66-6572-7279-0000-000000000002,root_owner=0:0", path],
        check=True, stdout=subprocess.DEVNULL, env=dict(os.environ, E2FSPROGS_FAKE_TIME="1000000000"))
    os.truncate(path, size)


def change_filesystem(path, rng, work):
    """Files are added to it, as a guest would add them."""
    size = os.stat(path).st_size
    os.truncate(path, max(round_to(size, PAGE), MIB))  # as it was made
    new = os.path.join(work, "new")
    for number in range(3):
        with open(new, "wb") as file:
            file.write(piece(rng, rng.randint(1, 100 * KIB)))
        subprocess.run(["debugfs", "-w", "-R", f"write {new} added-{number}", path], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.truncate(path, size)


def make_raw(path, rng, size, content, unit):
    """A raw image of that content."""
    if content == "filesystem":
        make_filesystem(path, size)
        return
    with open(path, "wb") as file:
        file.truncate(size)
        if content == "random":
            file.write(rng.randbytes(size))
        elif content == "zeros" and rng.random() < .5:
            file.write(bytes(min(size, MIB)))  # written, and zeros all the same
    if content == "mixed":
        change(path, rng, 25, unit)


def base_bytes(base, size):
    kind = base.split()[1]
    if kind == "longer":
        return size + size // 2 + 70001
    return size if kind == "same" else max(size * 6 // 10, 1)


def make_pair(case, directory, work, rng):
    """The raw image that is copied and, where there is a base, the base with its bytes as a raw image:
    (source, base or None, bytes of the base or None)."""
    source = os.path.join(directory, "disk.raw")
    size = case.bytes(rng)
    if not case.base:
        make_raw(source, rng, size, case.content, case.cluster)
        return source, None, None
    below = os.path.join(directory, "base.raw")
    wide = case.size == "wide"
    below_size = base_bytes(case.base, size)
    make_raw(below, rng, below_size,
             case.content if case.content == "filesystem" else "mixed" if wide else rng.choice(["mixed", "random"]),
             case.cluster)
    if case.content in ("zeros", "random"):
        make_raw(source, rng, size, case.content, case.cluster)
    else:
        copy_sparse(below, source)
        os.truncate(source, size)
        if case.content == "filesystem" and below_size == size:
            change_filesystem(source, rng, work)
        else:
            change(source, rng, 12, case.cluster)
    if case.base.startswith("raw"):
        return source, below, below
    base, flat = os.path.join(directory, "base.qcow2"), os.path.join(work, "base.raw")
    words = ["-c"] if rng.random() < .3 else []
    subprocess.run(["qemu-img", "convert", "-q", *words, "-f", "raw", "-O", "qcow2", below, base], check=True)
    shutil.move(below, flat)
    return source, base, flat


def copy_sparse(source, target):
    subprocess.run(["cp", "--sparse=always", source, target], check=True)

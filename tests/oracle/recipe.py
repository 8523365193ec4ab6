# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes qcow2 and qcow images with qemu-img and qemu-io, by chance, and the same ones for the same seed.

A *layer* is one image of a chain: what is asked of qemu-img to create it, and then what is done to it. A
*chain* is several layers in one directory, the last of which is what a guest would see. Every command
that made it is kept, for whoever wants to see what a failed case was made of.
"""

import os
import random
import shlex
import struct
import subprocess

SECTOR = 512
KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

# name, pieces that the generator is asked for beside everything else
CLUSTERS = [512, 4 * KIB, 64 * KIB, 2 * MIB]
COMPATS = ["0.10", "1.1"]
PREALLOCATIONS = ["off", "metadata", "falloc", "full"]
HEADER_SIZE = 24  # where the virtual size is in a header
HEADER_INCOMPATIBLE = 72
PATTERN = 192 * KIB  # bytes in a file of data


class Layer:
    """What an image is to be like."""

    def __init__(self, **words):
        self.format = "qcow2"
        self.compat = "1.1"
        self.cluster = 64 * KIB
        self.compression = None  # None, "zlib", "zstd"
        self.convert = False     # made by `qemu-img convert -c`, beside being written to
        self.extended = False
        self.preallocation = "off"
        self.lazy = False
        self.dirty = False       # left as by a qemu that was killed
        self.data_file = None    # None, "cooked", "raw"
        self.size = MIB
        self.resize = 0          # to what, in the end; 0: not
        self.odd = 0             # bytes taken off the size in the header
        self.snapshots = 0
        self.operations = 8
        self.absolute = False    # its backing file is named by an absolute path
        self.__dict__.update(words)

    def settle(self):
        """Leaves out what qemu-img would refuse."""
        if self.format != "qcow2":
            self.compat, self.extended, self.data_file = "0.10", False, None
            self.preallocation, self.snapshots, self.lazy = "off", 0, False
            self.cluster = 4 * KIB
        if self.format == "raw":
            self.compression, self.convert = None, False
        if self.compat == "0.10":
            self.extended, self.data_file, self.lazy, self.dirty = False, None, False, False
            if self.compression == "zstd":
                self.compression = "zlib"
        if self.cluster < 16 * KIB:
            self.extended = False
        if self.data_file:
            self.compression, self.convert, self.snapshots = None, False, 0
            if self.preallocation in ("falloc", "full") and self.size > 24 * MIB:
                self.preallocation = "metadata"
        if not self.compression:
            self.convert = False
        if self.size > 24 * MIB and self.preallocation != "off":
            self.preallocation = "metadata" if self.cluster >= 64 * KIB else "off"
        if self.convert:
            self.preallocation, self.dirty = "off", False
        if not self.lazy:
            self.dirty = False
        return self

    def __str__(self):
        plain = vars(Layer())
        return " ".join(f"{key}={value}" for key, value in vars(self).items()
                        if value != plain[key] or key == "size")


class Chain:
    """Layers made into images in a directory; the top is the last."""

    def __init__(self, directory, rng):
        self.directory = directory
        self.rng = rng
        self.commands = []
        self.names = []
        self.formats = []
        self.snapshots = []  # of the top: (name, size of the disk then)
        self.patterns = []
        os.makedirs(directory, exist_ok=True)

    @property
    def top(self):
        return os.path.join(self.directory, self.names[-1])

    @property
    def format(self):
        return self.formats[-1]

    def run(self, *command, may_fail=False):
        """qemu-io's operations may be refused, as a compressed write to a cluster that is there; what
        counts is the image that comes of it."""
        self.commands.append(shlex.join(command))
        done = subprocess.run(command, cwd=self.directory, stdin=subprocess.DEVNULL, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        misused = may_fail and any(words in done.stdout for words in ["Usage", "not found", "invalid"])
        if misused or done.returncode != 0 and not may_fail:
            raise RuntimeError(f"{shlex.join(command)}: status {done.returncode}: {done.stdout}")

    def pattern(self):
        """A file of data: random bytes, words, or some of each."""
        if len(self.patterns) < 4:
            name = f"data-{len(self.patterns)}"
            pieces = []
            while sum(map(len, pieces)) < PATTERN:
                pieces.append(self.rng.choice([
                    lambda: self.rng.randbytes(self.rng.randrange(1, 9000)),
                    lambda: self.rng.randbytes(3) * self.rng.randrange(1, 9000),
                    lambda: b" ".join(self.rng.choices([b"lun", b"sense", b"cluster", b"\0\0"],
                                                       k=2000))])())
            with open(os.path.join(self.directory, name), "wb") as file:
                file.write(b"".join(pieces)[:PATTERN])
            self.patterns.append(name)
        return self.rng.choice(self.patterns)

    # ---- one layer ------------------------------------------------------------------------------

    @staticmethod
    def creation(layer):
        if layer.format != "qcow2":
            return []
        words = [f"compat={layer.compat}", f"cluster_size={layer.cluster}"]
        if layer.compression == "zstd":
            words.append("compression_type=zstd")
        if layer.extended:
            words.append("extended_l2=on")
        if layer.preallocation != "off":
            words.append(f"preallocation={layer.preallocation}")
        if layer.lazy:
            words.append("lazy_refcounts=on")
        return ["-o", ",".join(words)]

    def add(self, layer):
        name = f"layer-{len(self.names)}.{layer.format}"
        command = ["qemu-img", "create", "-q", "-f", layer.format] + self.creation(layer)
        if layer.data_file:
            raw = "on" if layer.data_file == "raw" and not self.names else "off"
            command[-1] += f",data_file={name}.data,data_file_raw={raw}"
        if self.names:
            base = os.path.join(self.directory if layer.absolute else "", self.names[-1])
            command += ["-b", base, "-F", self.formats[-1]]
        self.run(*command, name, str(layer.size))
        self.write(name, layer)
        if layer.convert:
            self.convert(name, layer)
        if layer.resize:
            self.run("qemu-img", "resize", "-q", "--shrink", "-f", layer.format, name,
                     str(layer.resize), may_fail=True)
            self.operate(name, layer, max(layer.operations // 4, 1), layer.resize)
        self.names.append(name)
        self.formats.append(layer.format)
        self.patch(layer)

    def write(self, name, layer):
        """Operations, and snapshots between them."""
        size = layer.size
        part = max(layer.operations // (layer.snapshots + 1), 1)
        self.snapshots = []
        for number in range(layer.snapshots):
            self.operate(name, layer, part, size)
            self.run("qemu-img", "snapshot", "-q", "-c", f"snap {number}", name)
            self.snapshots.append((f"snap {number}", size))
            if layer.compat == "1.1" and self.rng.random() < .5:
                size = max(SECTOR, round_to(size * self.rng.uniform(.5, 1.5), SECTOR))
                self.run("qemu-img", "resize", "-q", "--shrink", "-f", "qcow2", name, str(size),
                         may_fail=True)
        self.operate(name, layer, part, size, abort=layer.dirty)

    def convert(self, name, layer):
        """Compressed, as a backup has it. What snapshots there were are gone."""
        self.snapshots = []
        words = ["qemu-img", "convert", "-q", "-c", "-f", layer.format, "-O", layer.format]
        if layer.format == "qcow2" and self.rng.random() < .5:
            words.append("-W")
        words += self.creation(layer)
        if self.names and layer.format == "qcow2" and self.rng.random() < .7:
            words += ["-B", self.names[-1], "-F", self.formats[-1]]
            layer.absolute = False
        made = os.path.join(self.directory, name + ".new")
        # With version 1 qemu-img 7.2 ends with status 1, though the image is complete.
        self.run(*words, name, made, may_fail=layer.format == "qcow")
        os.replace(made, os.path.join(self.directory, name))
        self.commands.append(f"mv {name}.new {name}")

    def operate(self, name, layer, count, size, abort=False):
        words = ["qemu-io", "-d", "unmap", "-f", layer.format]
        for _ in range(count):
            words += ["-c", self.operation(layer, size)]
        if abort:
            words += ["-c", "abort"]
        self.run(*words, name, may_fail=True)

    def operation(self, layer, size):
        rng = self.rng
        kind = rng.choices(["pattern", "file", "compressed", "zero", "unmap", "discard"],
                           [4, 4, 6 if layer.compression else 0, 2, 2, 2])[0]
        if kind == "compressed":
            first = rng.randrange(max(size // layer.cluster, 1)) * layer.cluster
            # Several clusters in a row; the last one of the image may be short.
            count = rng.randint(1, 8) if layer.format == "qcow2" else 1
            length = min(count * layer.cluster, size - first, 4 * MIB)
            if first + length < size:
                length = round_to(length, layer.cluster)
            return f"write -q -c -s {self.pattern()} {first} {max(length, SECTOR)}"
        first, length = self.range(layer, size)
        if kind == "pattern":
            return f"write -q -P {rng.randrange(1, 256)} {first} {length}"
        if kind == "file":
            return f"write -q -s {self.pattern()} {first} {length}"
        word = {"zero": "write -q -z", "unmap": "write -q -z -u", "discard": "discard -q"}[kind]
        return f"{word} {first} {length}"

    def range(self, layer, size):
        """Of bytes, mostly of sectors, often at the edges of clusters."""
        rng = self.rng
        unit = rng.choice([1, SECTOR, SECTOR, 2 * KIB, 4 * KIB, layer.cluster, layer.cluster])
        length = rng.choice([unit, unit * rng.randint(1, 16), rng.randint(1, 300 * KIB)])
        length = max(1, min(length, size, 4 * MIB))
        where = rng.choice(["anywhere", "anywhere", "start", "end"])
        first = {"anywhere": rng.randint(0, size - length), "start": 0, "end": size - length}[where]
        if where == "anywhere":
            first -= first % unit
        return first, length

    def patch(self, layer):
        """What qemu-img never writes by itself."""
        if layer.odd and layer.format != "raw":
            with open(self.top, "r+b") as file:
                file.seek(HEADER_SIZE)
                size = struct.unpack(">Q", file.read(8))[0]
                # So that the number of clusters stays.
                odd = min(layer.odd, (size - 1) % min(layer.cluster, SECTOR))
                file.seek(HEADER_SIZE)
                file.write(struct.pack(">Q", size - odd))
            self.commands.append(f"{self.names[-1]}: the size in the header is {odd} less")


def round_to(value, unit):
    return int(value) // unit * unit


# ---- chance -------------------------------------------------------------------------------------

def random_size(rng, cluster, wide):
    if wide:
        # More than one L2 table; sparse, whatever is done to it.
        return round_to(rng.uniform(.6, 1.4) * (GIB if cluster < MIB else 1024 * GIB), SECTOR)
    most = {512: MIB, 4 * KIB: 4 * MIB, 2 * MIB: 16 * MIB}.get(cluster, 8 * MIB)
    size = rng.choice([rng.randint(1, 100) * SECTOR, rng.randint(1, most // SECTOR) * SECTOR,
                       rng.randint(1, most // cluster) * cluster, most])
    return max(size, SECTOR)


def random_layer(rng, below=None, **words):
    """Whatever there is, but for what `words` says; `below` is the size of its backing file."""
    cluster = words.get("cluster") or rng.choice(CLUSTERS + [8 * KIB, 32 * KIB, 256 * KIB])
    wide = cluster >= 64 * KIB and rng.random() < .12
    if below and below <= 24 * MIB:
        # Like what it stands on, but shorter or longer as often as not.
        below = rng.choice([below, max(SECTOR, round_to(below * rng.uniform(.4, 1.8), SECTOR))])
    layer = Layer(
        compat=rng.choice(["0.10", "1.1", "1.1", "1.1"]), cluster=cluster,
        compression=rng.choice([None, None, "zlib", "zstd"]), convert=rng.random() < .3,
        extended=rng.random() < .35,
        preallocation=rng.choice(["off", "off", "off"] + PREALLOCATIONS[1:]),
        lazy=rng.random() < .25, dirty=rng.random() < .5,
        data_file=rng.choice([None, None, None, None, None, "cooked", "raw"]),
        size=below or random_size(rng, cluster, wide), operations=rng.randint(3, 20),
        snapshots=rng.choice([0, 0, 0, 1, 2, 3]), odd=rng.choice([0, 0, 0, 0, 0, 1, 100, 511]),
        absolute=rng.random() < .15)
    if rng.random() < .25:
        layer.resize = max(SECTOR, round_to(layer.size * rng.uniform(.5, 1.6), SECTOR))
    layer.__dict__.update(words)
    return layer.settle()


def random_chain(rng, depth, **top):
    """Layers, the lowest first; `top` is what the last one is to be like."""
    layers = []
    for number in range(depth):
        words = top if number == depth - 1 else {}
        if number == 0 and depth > 1:
            words = dict(words, format=rng.choice(["raw", "raw", "qcow", "qcow2", "qcow2", "qcow2"]))
        layer = random_layer(rng, layers[-1].size if layers else None, **words)
        if number > 0 and not layer.extended:
            layer.preallocation = "off"  # it would hide what is behind
        if number < depth - 1:
            layer.odd = 0  # qemu-img has no part of a sector of a backing file either
        layers.append(layer)
    return layers


def matrix():
    """What the top of a chain is to be like, and its depth: every compat with every size of cluster and
    every compression, the other features taking turns."""
    rows = []
    depths = [1, 2, 1, 5, 1, 2]
    for compat in COMPATS:
        for cluster in CLUSTERS:
            for compression in [None, "zlib"] + (["zstd"] if compat == "1.1" else []):
                number = len(rows)
                rows.append((depths[number % len(depths)], {
                    "compat": compat, "cluster": cluster, "compression": compression,
                    "convert": compression is not None and number % 2 == 0,
                    "extended": number % 3 != 0, "preallocation": PREALLOCATIONS[number % 4],
                    "data_file": [None, "cooked", None, "raw"][number % 4]
                                 if compression is None else None,
                    "snapshots": [2, 0, 1][number % 3]}))
    return rows


def case_rng(seed, name):
    return random.Random(f"{seed}/{name}")

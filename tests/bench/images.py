# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 images on NFS, copied to a thin LUN.

Four images of 4 GiB with 1 GiB of data, in pieces of 1 MiB, evenly apart: `plain`, `zlib` and `zstd`, made by
`qemu-img convert`, and `chain`, three images of which each has a third of the pieces. The data are words, by
chance, which compress to about a third. `thin` is an image of 1 TiB that has next to nothing, above a base with
4,096 pieces of 64 KiB. The LUN is empty before each run, and qemu-img is told so (--target-is-zero);
lunferry finds out.

How many READs a copy of `thin` takes, a scripted server counts (tests/servers/nfs3.py).
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile

from measure import GIB, KIB, LUNFERRY, MIB, ROOT, median_of, shell, timed

SIZE = 4 * GIB
DATA = GIB
THIN_SIZE = 1024 * GIB
THIN_PIECE = 64 * KIB
THIN_PIECES = 4096
SHAPES = ["plain", "zlib", "zstd", "chain", "thin"]
PEER = "qemu-img -m 16 -W"
TOOLS = ["lunferry", PEER]
LIMIT = 120


def words():
    """16 MiB of them."""
    rng = random.Random(1)
    known = [rng.randbytes(rng.randint(2, 9)).hex().encode() for _ in range(4096)]
    return b" ".join(rng.choices(known, k=2 * MIB))[:16 * MIB]


def qemu_img(*arguments):
    subprocess.run(["qemu-img", arguments[0], "-q", *arguments[1:]], check=True)


class Images:
    """All images, and the LUNs."""

    def __init__(self):
        self.nfs = os.environ["LAB_NFS_DIR"]
        self.raw = os.path.join(os.environ["LAB_DIR"], "images")
        os.mkdir(self.raw)
        self.data = words()
        self.write("all", SIZE, range(0, SIZE, SIZE * MIB // DATA), MIB)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", self.path("all"), self.image("plain"))
        for how in "zlib", "zstd":
            qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", f"compression_type={how}", "-W",
                     self.path("all"), self.image(how))
        self.make_chain()
        self.make_thin()
        self.luns = {SIZE: self.new_lun("images", SIZE), THIN_SIZE: self.new_lun("thin-image", THIN_SIZE)}

    def path(self, name):
        return os.path.join(self.raw, name)

    def image(self, name):
        return os.path.join(self.nfs, name + ".qcow2")

    def write(self, name, size, offsets, piece):
        with open(self.path(name), "wb") as file:
            file.truncate(size)
            for number, offset in enumerate(offsets):
                start = number * piece % len(self.data)
                file.seek(offset)
                file.write(self.data[start:start + piece])

    @staticmethod
    def new_lun(name, size):
        """(URL, backing file, name)"""
        return shell(f"lab_lun_thin {name} {size}"), shell(f"lab_backing {name}"), name

    def add_layer(self, name, base, size, writes):
        """An image above another, with pieces of 1 MiB of its own."""
        self.write("piece", MIB, [0], MIB)
        # By a whole URL: beside an NFS URL qemu-img asks the server for the directory by a name with two
        # slashes, and is refused.
        qemu_img("create", "-f", "qcow2", "-b", f"{os.environ['LAB_NFS']}/{base}", "-F", "qcow2",
                 self.image(name), str(size))
        words_of_io = [word for offset in writes
                       for word in ("-c", f"write -q -s {self.path('piece')} {offset} 1M")]
        subprocess.run(["qemu-io", "-f", "qcow2", *words_of_io, self.image(name)], check=True)

    def make_chain(self):
        offsets = list(range(0, SIZE, SIZE * MIB // DATA))
        self.write("base", SIZE, offsets[::3], MIB)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", self.path("base"), self.image("chain-0"))
        self.add_layer("chain-1", "chain-0.qcow2", SIZE, offsets[1::3])
        self.add_layer("chain", "chain-1.qcow2", SIZE, offsets[2::3])

    def make_thin(self):
        self.write("thin", THIN_SIZE, range(0, THIN_SIZE, THIN_SIZE // THIN_PIECES), THIN_PIECE)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", self.path("thin"), self.image("thin-0"))
        self.add_layer("thin", "thin-0.qcow2", THIN_SIZE,
                       range(512 * MIB, THIN_SIZE, THIN_SIZE // 16))

    def expect(self, shape):
        """What it is to be, by qemu-img; made once."""
        path = self.path(shape + ".raw")
        if not os.path.exists(path):
            qemu_img("convert", "-f", "qcow2", "-O", "raw", self.image(shape), path)
        return path

    def lun(self, shape):
        return self.luns[THIN_SIZE if shape == "thin" else SIZE]

    def command(self, shape, tool):
        source = f"{os.environ['LAB_NFS']}/{shape}.qcow2"
        target = self.lun(shape)[0]
        if tool == "lunferry":
            return [LUNFERRY, "copy", "-q", "-f", "qcow2", "--allow-backing=any", source, target]
        return ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", *tool.split()[1:], "-n",
                "--target-is-zero", source, target]


def same(a, b):
    subprocess.run([os.path.join(ROOT, "tests/sparse.py"), "compare", a, b], check=True)


def measure_shape(images, shape, count):
    """runs[tool]: a list of figures, or None where the tool does not come to an end."""
    runs = {tool: [] for tool in TOOLS}
    for number in range(count + 1):
        for tool in TOOLS:
            if runs[tool] is None:
                continue
            shell(f"lab_lun_empty {images.lun(shape)[2]}")
            result = timed(images.command(shape, tool), LIMIT if tool == PEER else None)
            if result is None:
                runs[tool] = None
                continue
            same(images.expect(shape), images.lun(shape)[1])
            if number > 0:  # the first is the warm-up
                runs[tool].append(result)
    return runs


def row(runs, shape, tool):
    here, peer = runs[tool], runs[PEER]
    result = {"case": "images", "shape": shape, "tool": tool}
    if here is None:
        return result
    result.update(wall=median_of(here, "wall"), wall_min=min(r["wall"] for r in here),
                  wall_max=max(r["wall"] for r in here), cpu=median_of(here, "cpu"),
                  memory_mib=median_of(here, "memory") / MIB)
    if tool != PEER and peer:
        for key in "wall", "cpu":
            result[key + "_to_peer"] = statistics.median(a[key] / b[key] for a, b in zip(here, peer))
    return result


def print_row(r):
    def figure(key):
        return "-" if r.get(key) is None else f"{r[key]:.2f}"

    print(f"{r['case']:8} {r['shape']:6} {r['tool']:18} {figure('wall'):>7} {figure('wall_min'):>7} "
          f"{figure('wall_max'):>7} {figure('cpu'):>7} {figure('memory_mib'):>6} "
          f"{figure('wall_to_peer'):>6} {figure('cpu_to_peer'):>6}", flush=True)


def count_reads(images):
    """READs of both images and their bytes, for a copy of the thin one to nowhere."""
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", "thin-0.qcow2", "-F", "qcow2", images.image("thin"))
    with tempfile.TemporaryDirectory(dir=images.raw) as directory:
        log = os.path.join(directory, "log")
        files = [word for name in ("thin", "thin-0")
                 for word in ("--file", f"/export/{name}.qcow2={images.image(name)}")]
        command = [sys.executable, "-B", os.path.join(ROOT, "tests/servers/nfs3.py"), "--log", log, *files]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as server:
            port = server.stdout.readline().split()[1]
            url = f"nfs://127.0.0.1/export/thin.qcow2?nfsport={port}&mountport={port}"
            subprocess.run([LUNFERRY, "copy", "-q", "-f", "qcow2", url, f"null:{THIN_SIZE}"], check=True)
            server.stdin.close()
        with open(log, encoding="utf-8") as file:
            reads = [entry for entry in map(json.loads, file) if entry["call"] == "READ"]
    count, size = len(reads), sum(entry["done"] for entry in reads)
    print(f"images   thin   {count} READs, {size / MIB:.1f} MiB, for "
          f"{(THIN_PIECES * THIN_PIECE + 16 * MIB) / MIB:.0f} MiB of data on {THIN_SIZE / GIB:.0f} GiB",
          flush=True)
    return {"case": "images", "shape": "thin", "reads": count, "read_bytes": size}


def measure_images(count):
    images = Images()
    print(f"{'case':8} {'shape':6} {'tool':18} {'wall s':>7} {'min':>7} {'max':>7} {'cpu s':>7} "
          f"{'MiB':>6} {'w/peer':>6} {'c/peer':>6}")
    results = []
    for shape in SHAPES:
        runs = measure_shape(images, shape, count)
        for tool in TOOLS:
            results.append(row(runs, shape, tool))
            print_row(results[-1])
    return results + [count_reads(images)]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Large images with little data against small ones that are all data.

The data is the same 1 GiB of random bytes: in one piece on an end of 1 GiB (`solid`), and in 4,096
pieces of 256 KiB, evenly apart, on one of 1 TiB (`thin`). `lun-nfs` copies from a thin LUN to a new
NFS file, `file-lun` from a local file to an empty thin LUN. Solid and thin, lunferry and qemu-img take
turns. qemu-img is told that the LUN is zero (--target-is-zero); lunferry finds out. Where qemu-img does
not come to an end within LIMIT seconds there is no figure.

On 8 GiB with the same pieces, a relay that is as fast as it can be counts the bytes each way.
"""

import os
import statistics
import subprocess

from measure import GIB, KIB, LUNFERRY, MIB, ROOT, median_of, remove, shell, timed

PIECE = 256 * KIB
PIECES = 4096
DATA = PIECE * PIECES
SIZES = {"solid": DATA, "thin": 1024 * GIB}
CASES = ["lun-nfs", "file-lun"]
PEER = "qemu-img -m 16 -W"
TOOLS = ["lunferry", PEER]
LIMIT = 60
COUNTED_SIZE = 8 * GIB


def scatter(data, path, size):
    """The pieces of data, evenly apart in the file at path, which gets this size."""
    with open(data, "rb") as source, open(path, "r+b" if os.path.exists(path) else "wb") as target:
        target.truncate(size)
        for number in range(PIECES):
            target.seek(number * (size // PIECES))
            target.write(source.read(PIECE))


class Ends:
    """The files and LUNs of both shapes."""

    def __init__(self):
        self.ram = os.path.join(os.environ["LAB_DIR"], "thin")
        os.mkdir(self.ram)
        self.data = os.path.join(self.ram, "data")
        subprocess.run([LUNFERRY, "copy", "-q", f"random:{DATA}", self.data], check=True)
        self.nfs_file = os.path.join(os.environ["LAB_NFS_DIR"], "thin.img")
        self.nfs = os.environ["LAB_NFS"] + "/thin.img"
        self.full, self.empty = {}, {}
        for shape, size in SIZES.items():
            self.full[shape] = self.new_lun(f"full-{shape}", size)
            self.empty[shape] = self.new_lun(f"empty-{shape}", size)
            scatter(self.data, self.full[shape][1], size)

    @staticmethod
    def new_lun(name, size):
        """(URL, backing file, name)"""
        return shell(f"lab_lun_thin {name} {size}"), shell(f"lab_backing {name}"), name

    def prepare(self, case, shape):
        if case == "lun-nfs":
            remove(self.nfs_file)
        else:
            shell(f"lab_lun_empty {self.empty[shape][2]}")

    def verify(self, case, shape):
        target = self.nfs_file if case == "lun-nfs" else self.empty[shape][1]
        same(self.full[shape][1], target)

    def command(self, case, shape, tool):
        to_nfs = case == "lun-nfs"
        source = self.full[shape][0 if to_nfs else 1]
        target = self.nfs if to_nfs else self.empty[shape][0]
        if tool == "lunferry":
            return [LUNFERRY, "copy", "-q", source, target]
        words = ["qemu-img", "convert", "-f", "raw", "-O", "raw"] + tool.split()[1:]
        return words + ([] if to_nfs else ["-n", "--target-is-zero"]) + [source, target]


def same(a, b):
    subprocess.run([os.path.join(ROOT, "tests/sparse.py"), "compare", a, b], check=True)


def measure_case(ends, case, count):
    """runs[shape, tool]: a list of figures, or None where the tool does not come to an end."""
    runs = {(shape, tool): [] for shape in SIZES for tool in TOOLS}
    for number in range(count + 1):
        for shape, tool in runs:
            if runs[shape, tool] is None:
                continue
            ends.prepare(case, shape)
            result = timed(ends.command(case, shape, tool), LIMIT if tool == PEER else None)
            if result is None:
                runs[shape, tool] = None
                continue
            ends.verify(case, shape)
            if number > 0:  # the first is the warm-up
                runs[shape, tool].append(result)
    return runs


def ratio(runs, others):
    if not runs or not others:
        return None
    return statistics.median(a["wall"] / b["wall"] for a, b in zip(runs, others))


def row(runs, case, shape, tool):
    here = runs[shape, tool]
    result = {"case": f"thin/{case}", "shape": shape, "tool": tool}
    if here is None:
        return result
    return dict(result, wall=median_of(here, "wall"), wall_min=min(r["wall"] for r in here),
                wall_max=max(r["wall"] for r in here), cpu_per_gib=median_of(here, "cpu"),
                memory_mib=median_of(here, "memory") / MIB,
                wall_to_solid=ratio(here, runs["solid", tool]) if shape == "thin" else None,
                wall_to_peer=ratio(here, runs[shape, PEER]) if tool != PEER else None)


def print_row(r):
    def figure(key):
        return "-" if r.get(key) is None else f"{r[key]:.2f}"

    print(f"{r['case']:14} {r['shape']:5} {r['tool']:18} {figure('wall'):>7} {figure('wall_min'):>7} "
          f"{figure('wall_max'):>7} {figure('cpu_per_gib'):>7} {figure('memory_mib'):>6} "
          f"{figure('wall_to_solid'):>7} {figure('wall_to_peer'):>6}", flush=True)


def count_bytes(name):
    """(to the server, from the server)"""
    counts = dict(line.split("=") for line in shell(f"lab_link_counts {name}").splitlines())
    return int(counts["forward_bytes"]), int(counts["backward_bytes"])


def measure_wire(ends):
    """What a copy of a thin LUN of 8 GiB sends and receives, each side behind a relay of its own."""
    url, path, _ = ends.new_lun("counted", COUNTED_SIZE)
    scatter(ends.data, path, COUNTED_SIZE)
    remove(ends.nfs_file)
    source = shell(f"lab_link from >/dev/null; lab_link_url from {url}")
    target = shell(f"lab_link to >/dev/null; lab_link_url to {ends.nfs}")
    subprocess.run([LUNFERRY, "copy", "-q", source, target], check=True)
    same(path, ends.nfs_file)
    results = []
    for side, link in ("source", "from"), ("target", "to"):
        sent, received = count_bytes(link)
        shell(f"lab_link_stop {link}")
        results.append({"case": "thin/wire", "side": side, "sent": sent, "received": received})
        print(f"thin/wire      {side}: {sent / GIB:.4f} GiB sent, {received / GIB:.4f} GiB received, "
              f"for {DATA / GIB:.0f} GiB of data on {COUNTED_SIZE / GIB:.0f} GiB", flush=True)
    return results


def measure_thin(count):
    ends = Ends()
    print(f"{'case':14} {'shape':5} {'tool':18} {'wall s':>7} {'min':>7} {'max':>7} {'cpu/GiB':>7} "
          f"{'MiB':>6} {'w/solid':>7} {'w/peer':>6}")
    results = []
    for case in CASES:
        runs = measure_case(ends, case, count)
        for shape, tool in runs:
            results.append(row(runs, case, shape, tool))
            print_row(results[-1])
    return results + measure_wire(ends)

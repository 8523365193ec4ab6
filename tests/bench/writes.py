# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 images that are written: what they cost beside raw ones, and beside qemu-img.

    file        a filesystem image (ext4 with 2 GiB of files from /usr) from a file to a file, both on a tmpfs,
                compressed by zlib and by zstd, at lunferry's usual level and at qemu-img's (zlib:6, zstd:3);
                and 1 GiB of random bytes
    lun         the filesystem from a thin LUN to NFS, over loopback and with a round trip of 2 ms
    plain       the filesystem from the LUN and from a file to NFS, uncompressed, beside a raw copy
    increment   of the LUN in which 1% of the clusters have changed, by the digests of the base, beside only reading
                the LUN, also over 200 MiB/s; a relay counts what is sent
    digests     the same copy with and without --digests, also over 200 MiB/s

Each group takes turns. Targets are new. The first round is not counted and is lunferry's alone; after it the
targets are compared with what they should be, by qemu-img, and checked.
"""

import os
import random
import shutil
import statistics
import subprocess

from images import qemu_img
from measure import GIB, KIB, LUNFERRY, MIB, median_of, remove, shell, timed

FILES = 2 * GIB
FILES_FROM = ["/usr/bin", "/usr/share", "/usr/lib"]  # in this order, as much as goes in
DISK = FILES + FILES // 4
CLUSTER = 64 * KIB
RATE = 200 * MIB
PEER = ["qemu-img", "convert", "-c", "-m", "16", "-W", "-f", "raw", "-O", "qcow2"]
GROUPS = ["file", "lun", "plain", "increment", "digests"]


# ---- What is copied -------------------------------------------------------------------------------


def files_below(top):
    for directory, below, names in os.walk(top):
        below.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def gather(stage):
    total = 0
    for top in FILES_FROM:
        for path in files_below(top):
            size = os.path.getsize(path)
            if total + size <= FILES:
                os.makedirs(stage + os.path.dirname(path), exist_ok=True)
                shutil.copyfile(path, stage + path)
                total += size


def make_filesystem(stage, path):
    """In a file that is as long as it is to be."""
    gather(stage)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", stage, path], check=True)
    shutil.rmtree(stage)


class Place:
    """Where the disks are, and where copies go."""

    def __init__(self):
        self.nfs = os.environ["LAB_NFS_DIR"]
        self.url = os.environ["LAB_NFS"]
        self.ram = os.path.join(os.environ["LAB_DIR"], "writes")
        os.mkdir(self.ram)
        self.lun = shell(f"lab_lun_thin writes {DISK}")
        self.disk = shell("lab_backing writes")  # the LUN, as a file
        self.random = self.in_ram("random.raw")
        make_filesystem(self.in_ram("stage"), self.disk)
        subprocess.run([LUNFERRY, "copy", "-q", f"random:{GIB}", self.random], check=True)

    def in_ram(self, name):
        return os.path.join(self.ram, name)

    def on_nfs(self, name):
        return os.path.join(self.nfs, name)

    def remove(self, name):
        remove(self.in_ram(name))
        remove(self.on_nfs(name))


# ---- Taking turns ---------------------------------------------------------------------------------


class Run:
    """One command of a group; what its target is to be equal to, or None where there is no target."""

    def __init__(self, command, expected, target):
        self.command, self.expected, self.target = command, expected, target

    def ours(self):
        return self.command[0] == LUNFERRY

    def check(self):
        image_format = "qcow2" if self.target.endswith(".qcow2") else "raw"
        qemu_img("compare", "-f", "raw", "-F", image_format, self.expected, self.target)
        if image_format == "qcow2":
            qemu_img("check", "-f", "qcow2", self.target)


def ferry(source, target, *options):
    return [LUNFERRY, "copy", "-q", "-f", "raw", *options, source, target]


def peer(how, source, target):
    return PEER + ["-o", f"compression_type={how}", source, target]


def take_turns(place, runs, count):
    """figures[name], a list of one for each round that counts, with the size of the target."""
    figures = {name: [] for name in runs}
    for number in range(count + 1):
        for name, run in runs.items():
            if number == 0 and not run.ours():
                continue
            for used in "target.qcow2", "target.img", "target.dig":
                place.remove(used)
            result = timed(run.command)
            result["size"] = os.path.getsize(run.target) if run.target else 0
            if number > 0:
                figures[name].append(result)
            elif run.target:
                run.check()
    for used in "target.qcow2", "target.img", "target.dig":
        place.remove(used)
    return figures


HEAD = (f"{'group':18} {'shape':20} {'wall s':>7} {'min':>7} {'max':>7} {'cpu s':>7} {'MiB':>6} "
        f"{'size':>7} {'wall':>6} {'cpu':>6} {'size':>6}  beside")


def ratio(figures, others, key):
    """The median of those within a round: the machine's speed drifts."""
    return statistics.median(a[key] / b[key] for a, b in zip(figures, others)) if others[0][key] else None


def report(group, figures, beside):
    """A line for each; beside[name] is the run that it is to be measured by."""
    results = []
    for name, here in figures.items():
        result = {"case": f"writes/{group}", "shape": name, "wall": median_of(here, "wall"),
                  "wall_min": min(r["wall"] for r in here), "wall_max": max(r["wall"] for r in here),
                  "cpu": median_of(here, "cpu"), "memory_mib": median_of(here, "memory") / MIB,
                  "size_mib": median_of(here, "size") / MIB}
        other = figures.get(beside.get(name))
        if other:
            result.update(beside=beside[name],
                          **{f"{key}_ratio": ratio(here, other, key) for key in ("wall", "cpu", "size")})
        results.append(result)
        print_row(group, result)
    return results


def print_row(group, r):
    def figure(key, digits=2):
        return "-" if r.get(key) is None else f"{r[key]:.{digits}f}"

    print(f"{group:18} {r['shape']:20} {figure('wall'):>7} {figure('wall_min'):>7} "
          f"{figure('wall_max'):>7} {figure('cpu'):>7} {figure('memory_mib', 1):>6} "
          f"{figure('size_mib', 1):>7} {figure('wall_ratio', 3):>6} {figure('cpu_ratio', 3):>6} "
          f"{figure('size_ratio', 3):>6}  {r.get('beside', '-')}", flush=True)


def with_links(links):
    """(name, address) of each, which is there until the next one is asked for."""
    for name, rtt in links.items():
        if rtt is None:
            yield name, "127.0.0.1"
            continue
        yield name, shell(f"lab_link {name} --delay-us {int(rtt * 500)} --rate {RATE}")
        shell(f"lab_link_stop {name}")


def through(address, command):
    return [word.replace("127.0.0.1", address) for word in command]


# ---- Compressed -----------------------------------------------------------------------------------


def measure_file(place, count):
    target = place.in_ram("target.qcow2")
    results = []
    for disk, source, codecs in [("filesystem", place.disk, ["zstd", "zstd:3"]),
                                 ("random", place.random, ["zlib"]),
                                 ("filesystem", place.disk, ["zlib", "zlib:6"])]:
        how = codecs[0]
        runs = {codec: Run(ferry(source, target, "--lanes=2", f"--compression={codec}"), source, target)
                for codec in codecs}
        runs[f"qemu-img {how}"] = Run(peer(how, source, target), source, target)
        results += report(f"file {disk}", take_turns(place, runs, count),
                          {codec: f"qemu-img {how}" for codec in codecs})
    return results


def measure_lun(place, count):
    """Both cores are shared with the servers."""
    url, path = place.url + "/target.qcow2", place.on_nfs("target.qcow2")
    results = []
    for link, address in with_links({"loopback": None, "rtt2": 2.0}):
        for how in "zstd", "zlib":
            runs = {f"{how}{lanes}": ferry(place.lun, url, f"--compression={how}", *lanes.split())
                    for lanes in ("", " --lanes=2")}
            beside = {name: f"qemu-img {how}" for name in runs}
            runs[f"qemu-img {how}"] = peer(how, place.lun, url)
            runs = {name: Run(through(address, command), place.disk, path) for name, command in runs.items()}
            results += report(f"lun {link}", take_turns(place, runs, count), beside)
    return results


# ---- Uncompressed ---------------------------------------------------------------------------------


def measure_plain(place, count):
    results = []
    for name, source in ("file", place.disk), ("lun", place.lun):
        runs = {shape: Run(ferry(source, f"{place.url}/{target}"), place.disk, place.on_nfs(target))
                for shape, target in (("raw", "target.img"), ("qcow2", "target.qcow2"))}
        results += report(f"plain {name}", take_turns(place, runs, count), {"qcow2": "raw"})
    return results


def change(path):
    """One percent of the clusters, by chance."""
    rng = random.Random(3)
    numbers = rng.sample(range(DISK // CLUSTER), DISK // CLUSTER // 100)
    with open(path, "r+b") as file:
        for number in numbers:
            file.seek(number * CLUSTER)
            file.write(rng.randbytes(CLUSTER))
    return len(numbers)


def base_digests(place, address):
    """Of the base as it is named by this address: by another one it is another file."""
    path, url = place.in_ram("base.dig"), place.url.replace("127.0.0.1", address)
    remove(path)
    subprocess.run([LUNFERRY, "checksum", "-q", "--digests", path, url + "/base.qcow2"], check=True,
                   stdout=subprocess.DEVNULL)


def sent_by(place, command):
    """Bytes to the server of the target, which a relay counts."""
    address = shell("lab_link increment")
    base_digests(place, address)
    before = forward_bytes("increment")
    subprocess.run([word.replace(place.url, place.url.replace("127.0.0.1", address))
                    for word in command], check=True)
    sent = forward_bytes("increment") - before
    shell("lab_link_stop increment")
    return sent


def forward_bytes(link):
    counts = dict(line.split("=") for line in shell(f"lab_link_counts {link}").splitlines())
    return int(counts["forward_bytes"])


def measure_increment(place, count):
    """The LUN stays as it was changed."""
    subprocess.run(ferry(place.lun, place.url + "/base.qcow2"), check=True)
    changed = change(place.disk) * CLUSTER
    url, path = place.url + "/target.qcow2", place.on_nfs("target.qcow2")
    increment = ferry(place.lun, url, "-B", "base.qcow2", f"--base-digests={place.in_ram('base.dig')}")
    commands = {"only read": ferry(place.lun, f"null:{DISK}"),
                "increment": increment,
                "increment, digests": increment + [f"--digests={place.in_ram('target.dig')}"],
                "increment --lanes=2": increment + ["--lanes=2"]}
    results = []
    for link, address in with_links({"loopback": None, "200M": 0.0}):
        base_digests(place, address)
        runs = {name: Run(through(address, command), place.disk, path if url in command else None)
                for name, command in commands.items()}
        results += report(f"increment {link}", take_turns(place, runs, count),
                          {name: "only read" for name in list(runs)[1:]})
    sent = sent_by(place, increment)
    print(f"increment: {changed / MIB:.1f} MiB changed; sent {sent / MIB:.1f} MiB ({sent / changed:.3f}), "
          f"file {os.path.getsize(path) / MIB:.1f} MiB ({os.path.getsize(path) / changed:.3f})", flush=True)
    results.append({"case": "writes/increment", "changed": changed, "sent": sent,
                    "file": os.path.getsize(path)})
    for used in "target.qcow2", "base.dig", "base.qcow2":
        place.remove(used)
    return results


def measure_digests(place, count):
    """From a file to a file one core is free, from the LUN to NFS none."""
    kept = f"--digests={place.in_ram('target.dig')}"
    to_nfs = place.url + "/target.img", place.on_nfs("target.img")
    ends = {"file": ("loopback", place.disk, place.in_ram("target.img"), place.in_ram("target.img")),
            "lun": ("loopback", place.lun, *to_nfs), "lun 200M": ("200M", place.lun, *to_nfs)}
    results = []
    for link, address in with_links({"loopback": None, "200M": 0.0}):
        for name, (over, source, target, path) in ends.items():
            if over != link:
                continue
            runs = {f"{shape}{lanes}": Run(through(address, ferry(source, target, *options, *lanes.split())),
                                           place.disk, path)
                    for lanes in ("", " --lanes=2") for shape, options in (("without", []), ("with", [kept]))}
            results += report(f"digests {name}", take_turns(place, runs, count),
                              {"with": "without", "with --lanes=2": "without --lanes=2"})
    return results


def measure_writes(groups, count):
    """All groups, or some of them."""
    place = Place()
    print(HEAD)
    measures = {"file": measure_file, "lun": measure_lun, "plain": measure_plain,
                "increment": measure_increment, "digests": measure_digests}
    return [result for group in GROUPS if group in groups for result in measures[group](place, count)]

# SPDX-License-Identifier: LGPL-2.1-or-later
"""qcow2 images on NFS: what they cost beside raw ones, and beside qemu-img.

    chains      a base of 2.5 GiB that holds 2 GiB, raw and qcow2, copied alone, below an image of 1 TiB with
                eight clusters of its own (`thin`), and below ten of 2.5 GiB, each with 1% of the clusters
                that hold data, by chance (`ten`): to a thin LUN and to a new NFS file
    map         of those images, also by a link with round trips of 2 and of 20 ms: the difference tells how
                many of them one waits for
    plain       1 GiB, raw and as an uncompressed image, to a LUN, also over 200 MiB/s and 20 ms
    compressed  1 GiB of words by zlib and by zstd, to a file on a tmpfs, beside qemu-img

Each group takes turns. LUNs are empty and files new before each run. The first round is not counted; after it,
targets are compared with what they should be, for which qemu-img read the image.
"""

import os
import random
import statistics
import subprocess

from measure import GIB, KIB, LUNFERRY, MIB, ROOT, median_of, remove, shell, timed

BASE_SIZE = 5 * GIB // 2
BASE_PIECE = 5 * MIB  # of which so much, at its start, is data:
BASE_DATA = 4 * MIB
THIN_SIZE = 1024 * GIB
THIN_CLUSTERS = 8
LAYERS = 10
CLUSTER = 64 * KIB
BASES = ["raw", "qcow2"]
CHAINS = ["base", "thin", "ten"]
ONE = GIB  # of `plain` and `compressed`
RATE = 200 * MIB
PEER = "qemu-img -m 16 -W"


def words():
    """16 MiB of them, which compress to about a third."""
    rng = random.Random(1)
    known = [rng.randbytes(rng.randint(2, 9)).hex().encode() for _ in range(4096)]
    return b" ".join(rng.choices(known, k=2 * MIB))[:16 * MIB]


def qemu_img(*arguments):
    subprocess.run(["qemu-img", arguments[0], "-q", *arguments[1:]], check=True)


def to_raw(image, path):
    qemu_img("convert", "-f", "qcow2", "-O", "raw", image, path)


def same(a, b):
    subprocess.run([os.path.join(ROOT, "tests/sparse.py"), "compare", a, b], check=True)


class Place:
    """Where the images are, and where copies go."""

    def __init__(self):
        self.nfs = os.environ["LAB_NFS_DIR"]
        self.url = os.environ["LAB_NFS"]
        self.ram = os.path.join(os.environ["LAB_DIR"], "images")
        os.mkdir(self.ram)
        self.luns = {size: self.new_lun(f"images-{size // MIB}", size)
                     for size in (ONE, BASE_SIZE, THIN_SIZE)}

    @staticmethod
    def new_lun(name, size):
        """(URL, backing file, name)"""
        return shell(f"lab_lun_thin {name} {size}"), shell(f"lab_backing {name}"), name

    def on_nfs(self, name):
        return os.path.join(self.nfs, name)

    def in_ram(self, name):
        return os.path.join(self.ram, name)

    def empty(self):
        """All targets; nobody keeps memory that another run needs."""
        for _, _, name in self.luns.values():
            shell(f"lab_lun_empty {name}")
        remove(self.on_nfs("target.img"))
        remove(self.in_ram("target.img"))

    def target(self, kind, size):
        """(as lunferry names it, the file in which it then is)"""
        if kind == "lun":
            return self.luns[size][:2]
        if kind == "nfs":
            return self.url + "/target.img", self.on_nfs("target.img")
        return self.in_ram("target.img"), self.in_ram("target.img")


class Run:
    """One command of a group, and what its target is to be."""

    def __init__(self, command, target, expected):
        self.command, self.target, self.expected = command, target, expected


def ferry(source, target, *options):
    image_format = "qcow2" if ".qcow2" in source else "raw"
    return [LUNFERRY, "copy", "-q", "-f", image_format, *options, source, target]


def take_turns(place, runs, count):
    """figures[name], a list of one for each round that counts."""
    figures = {name: [] for name in runs}
    for number in range(count + 1):
        for name, run in runs.items():
            place.empty()
            result = timed(run.command)
            if number == 0:  # the warm-up
                same(run.expected, run.target)
            else:
                figures[name].append(result)
    place.empty()
    return figures


def ratio(figures, others, key):
    """The median of those within a round: the machine's speed drifts."""
    return statistics.median(a[key] / b[key] for a, b in zip(figures, others))


def report(group, figures, beside):
    """A line for each; beside[name] is the run that it is to be measured by."""
    results = []
    for name, here in figures.items():
        result = {"case": f"images/{group}", "shape": name, "wall": median_of(here, "wall"),
                  "wall_min": min(r["wall"] for r in here), "wall_max": max(r["wall"] for r in here),
                  "cpu": median_of(here, "cpu"), "memory_mib": median_of(here, "memory") / MIB}
        other = figures.get(beside.get(name))
        if other:
            result.update(beside=beside[name], wall_ratio=ratio(here, other, "wall"),
                          cpu_ratio=ratio(here, other, "cpu"),
                          memory_more_mib=result["memory_mib"] - median_of(other, "memory") / MIB)
        results.append(result)
        print_row(group, result)
    return results


HEAD = (f"{'group':11} {'shape':20} {'wall s':>7} {'min':>7} {'max':>7} {'cpu s':>7} {'MiB':>6} "
        f"{'wall':>6} {'cpu':>6} {'MiB':>6}  beside")


def print_row(group, r):
    def figure(key):
        return "-" if r.get(key) is None else f"{r[key]:.2f}"

    print(f"{group:11} {r['shape']:20} {figure('wall'):>7} {figure('wall_min'):>7} "
          f"{figure('wall_max'):>7} {figure('cpu'):>7} {figure('memory_mib'):>6} "
          f"{figure('wall_ratio'):>6} {figure('cpu_ratio'):>6} {figure('memory_more_mib'):>6}  "
          f"{r.get('beside', '-')}", flush=True)


# ---- Chains ---------------------------------------------------------------------------------------


def base_offsets():
    """Of the base's clusters that hold data."""
    return [start + offset for start in range(0, BASE_SIZE, BASE_PIECE)
            for offset in range(0, BASE_DATA, CLUSTER)]


def make_base(place):
    data = words()
    with open(place.on_nfs("base.raw"), "wb") as file:
        file.truncate(BASE_SIZE)
        for number, offset in enumerate(base_offsets()):
            start = number * CLUSTER % len(data)
            file.seek(offset)
            file.write(data[start:start + CLUSTER])
    qemu_img("convert", "-f", "raw", "-O", "qcow2", place.on_nfs("base.raw"),
             place.on_nfs("base.qcow2"))


def add_layer(place, name, base, size, offsets, byte):
    """An image above another, with clusters of its own, all of one byte."""
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", base.rsplit(".", 1)[1], place.on_nfs(name),
             str(size))
    writes = [word for offset in offsets
              for word in ("-c", f"write -q -P {byte} {offset} {CLUSTER}")]
    subprocess.run(["qemu-io", "-f", "qcow2", *writes, place.on_nfs(name)], check=True)


def make_chains(place):
    make_base(place)
    rng = random.Random(2)
    known = base_offsets()
    layers = [rng.sample(known, len(known) // 100) for _ in range(LAYERS)]
    for base in BASES:
        add_layer(place, f"thin-{base}.qcow2", f"base.{base}", THIN_SIZE,
                  range(THIN_SIZE // THIN_CLUSTERS // 2, THIN_SIZE, THIN_SIZE // THIN_CLUSTERS), 1)
        below = f"base.{base}"
        for number, offsets in enumerate(layers):
            name = f"ten-{base}.qcow2" if number == LAYERS - 1 else f"layer-{number}-{base}.qcow2"
            add_layer(place, name, below, BASE_SIZE, offsets, number + 1)
            below = name
    for chain in "thin", "ten":
        to_raw(place.on_nfs(f"{chain}-raw.qcow2"), place.in_ram(f"{chain}.raw"))


def chain_name(chain, base):
    return f"base.{base}" if chain == "base" else f"{chain}-{base}.qcow2"


def measure_copies(place, count):
    results = []
    for target in "lun", "nfs":
        for base in BASES:
            runs = {}
            for chain in CHAINS:
                size = THIN_SIZE if chain == "thin" else BASE_SIZE
                to, path = place.target(target, size)
                expected = place.on_nfs("base.raw") if chain == "base" else place.in_ram(f"{chain}.raw")
                runs[f"{chain}/{base}"] = Run(ferry(f"{place.url}/{chain_name(chain, base)}", to),
                                              path, expected)
            figures = take_turns(place, runs, count)
            results += report(f"to {target}", figures,
                              {name: f"base/{base}" for name in list(runs)[1:]})
    return results


def map_of(place, chain, base, address):
    url = f"{place.url}/{chain_name(chain, base)}".replace("127.0.0.1", address)
    return [LUNFERRY, "map", "--json", "-f", "qcow2", url]


def measure_maps(place, count):
    """Whatever takes as many round trips at 2 ms as at 20 takes 18 ms more for each that is waited for."""
    links = {"map-rtt2": 2.0, "map-rtt20": 20.0}
    addresses = {"loopback": "127.0.0.1"}
    for name, rtt in links.items():
        addresses[name] = shell(f"lab_link {name} --delay-us {int(rtt * 500)}")
    shapes = [(chain, base) for chain in CHAINS[1:] for base in BASES] + [("base", "qcow2")]
    results = []
    for chain, base in shapes:
        walls = {link: [] for link in addresses}
        for number in range(count + 1):
            for link, address in addresses.items():
                result = timed(map_of(place, chain, base, address), output=subprocess.DEVNULL)
                if number > 0:
                    walls[link].append(result["wall"] * 1000)
        medians = {link: statistics.median(walls[link]) for link in walls}
        trips = (medians["map-rtt20"] - medians["map-rtt2"]) / 18
        result = {"case": "images/map", "shape": f"{chain}/{base}", "round_trips": trips,
                  "loopback_ms": medians["loopback"], "rtt2_ms": medians["map-rtt2"],
                  "beyond_ms": medians["map-rtt2"] - 2 * trips}
        results.append(result)
        print(f"map         {result['shape']:20} loopback {result['loopback_ms']:.1f} ms; RTT 2 ms: "
              f"{result['rtt2_ms']:.1f} ms, {trips:.1f} round trips, "
              f"{result['beyond_ms']:.1f} ms beyond them", flush=True)
    for name in links:
        shell(f"lab_link_stop {name}")
    return results


def remove_chains(place):
    for directory in place.nfs, place.ram:
        for name in os.listdir(directory):
            if name.endswith((".raw", ".qcow2")):
                remove(os.path.join(directory, name))


# ---- One image ------------------------------------------------------------------------------------


def make_one(place):
    data = words()
    with open(place.on_nfs("one.raw"), "wb") as file:
        for _ in range(ONE // len(data)):
            file.write(data)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", place.on_nfs("one.raw"), place.on_nfs("plain.qcow2"))
    for how in "zlib", "zstd":
        qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", f"compression_type={how}", "-W",
                 place.on_nfs("one.raw"), place.on_nfs(f"{how}.qcow2"))


def measure_plain(place, count):
    results = []
    for link in "loopback", "rtt20":
        address = "127.0.0.1"
        if link != "loopback":
            address = shell(f"lab_link {link} --delay-us 10000 --rate {RATE}")
        url, path, _ = place.luns[ONE]
        runs = {f"{name} {link}": Run([word.replace("127.0.0.1", address)
                                       for word in ferry(f"{place.url}/{name}", url)],
                                      path, place.on_nfs("one.raw"))
                for name in ("one.raw", "plain.qcow2")}
        raw, image = runs
        results += report("plain", take_turns(place, runs, count), {image: raw})
        if link != "loopback":
            shell(f"lab_link_stop {link}")
    return results


def measure_compressed(place, count):
    results = []
    target, path = place.target("ram", ONE)
    for how in "zlib", "zstd":
        source = f"{place.url}/{how}.qcow2"
        commands = {
            f"{how} --lanes 2": ferry(source, target, "--lanes=2"),
            f"{how}": ferry(source, target),
            f"{how} {PEER}": ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", *PEER.split()[1:],
                              source, target]}
        runs = {name: Run(command, path, place.on_nfs("one.raw"))
                for name, command in commands.items()}
        two, one, peer = runs
        results += report("compressed", take_turns(place, runs, count), {two: peer, one: peer})
    return results


def measure_images(count):
    place = Place()
    print(HEAD)
    make_one(place)
    results = measure_plain(place, count) + measure_compressed(place, count)
    remove_chains(place)
    make_chains(place)
    results += measure_copies(place, count) + measure_maps(place, count)
    remove_chains(place)
    return results

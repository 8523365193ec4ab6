# SPDX-License-Identifier: LGPL-2.1-or-later
"""What qemu-img, and lunferry itself, find in a qcow2 image that lunferry has written."""

import json
import os

import judge
from judge import Wrong, lunferry, run, sparse
from recipe import SECTOR, round_to


def round_up(value, unit):
    return -(-value // unit) * unit


def check(path):
    """No error, and no cluster that is taken and used by nothing."""
    status, out, err, _ = judge.outcome(["qemu-img", "check", "--output=json", "-f", "qcow2", path])
    found = json.loads(out) if out else {}
    if status != 0 or any(found.get(word) for word in ("check-errors", "corruptions", "leaks")):
        raise Wrong(f"qemu-img check: status {status}\n{out}{err}")


def check_facts(path, case, size, base):
    """What was asked for is what is there."""
    info = json.loads(run(["qemu-img", "info", "--output=json", "-f", "qcow2", path])[0])
    data = info["format-specific"]["data"]
    compression = case.codec.split(":")[0]
    wanted = {
        "virtual-size": (info["virtual-size"], round_up(size, SECTOR)),
        "cluster-size": (info["cluster-size"], case.cluster),
        "compat": (data["compat"], case.compat),
        "refcount bits": (data["refcount-bits"], case.bits),
        "extended L2": (data.get("extended-l2", False), case.extended),
        "corrupt": (data.get("corrupt", False), False),
        "backing file": (info.get("backing-filename"), base),
        "backing format": (info.get("backing-filename-format"), case.base.split()[0] if base else None),
    }
    if compression:
        wanted["compression"] = data["compression-type"], compression
    for word, (got, asked) in wanted.items():
        if got != asked:
            raise Wrong(f"{word}: {got}, and {asked} was asked for")


def check_bytes(path, endpoint, how, source):
    """The same as the source, by both programs. An odd source is made longer, to a whole sector."""
    size = os.stat(source).st_size
    if size <= judge.FILL_MOST:  # it reads zeros too
        lunferry("compare", "-q", "-f", "raw", "-F", "qcow2", *how, source, endpoint)
    os.truncate(source, round_up(size, SECTOR))
    if size <= judge.FILL_MOST:
        lunferry("compare", "-q", "--strict", "-f", "raw", "-F", "qcow2", *how, source, endpoint)
    run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", source, path])


def check_map(path, endpoint, how, source, work, seen, tells):
    judge.Judge(work, seen).map(endpoint, path, "qcow2", ["-f", "qcow2", *how], source, tells)


# ---- what is left out ---------------------------------------------------------------------------

def allocated(path, cluster):
    """The numbers of clusters that are in the image itself: (data, zeros)."""
    data, zeros = set(), set()
    for entry in json.loads(run(["qemu-img", "map", "--output=json", "-f", "qcow2", path])[0]):
        if entry["depth"] == 0 and entry["present"]:
            first, end = entry["start"] // cluster, round_up(entry["start"] + entry["length"], cluster)
            (data if entry["data"] else zeros).update(range(first, end // cluster))
    return data, zeros


def differing(source, base, cluster):
    """The numbers of clusters in which a raw image differs from its base (None: zeros), which has zeros beyond
    its end: (those that hold data, those that are zero)."""
    data, zeros = set(), set()
    files = [os.open(path, os.O_RDONLY) for path in (source, base or os.devnull)]
    size = round_up(os.fstat(files[0]).st_size, SECTOR)  # as the image has it
    candidates = set()
    for file in files:
        for first, end in sparse.data_ranges(file, min(size, os.fstat(file).st_size)):
            candidates.update(range(first // cluster, round_up(end, cluster) // cluster))
    for number in candidates:
        length = min(cluster, size - number * cluster)
        here, below = (sparse.read_all(file, number * cluster, length) for file in files)
        if here != below:
            (data if here.strip(b"\0") else zeros).add(number)
    for file in files:
        os.close(file)
    return data, zeros


def short_zeros(source, cluster):
    """The number of a last cluster that is short and all zeros, as a set: it may be data, as too short a run."""
    with open(source, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        rest = os.pread(file.fileno(), size % cluster, round_to(size, cluster))
    return {size // cluster} if rest and not rest.strip(b"\0") else set()


def half_sector(source, base, cluster):
    """The number of the last cluster, as a set, if the disk ends in the middle of a sector and the base goes on: it
    may be there, whatever the base has."""
    size = os.stat(source).st_size
    return {size // cluster} if base and size % SECTOR and os.stat(base).st_size >= size else set()


def check_allocation(path, case, source, base):
    """What equals the base is not there, and zeros are no data."""
    want_data, want_zeros = differing(source, base, case.cluster)
    if case.compat == "0.10":  # has no zero clusters
        want_data, want_zeros = want_data | want_zeros, set()
    data, zeros = allocated(path, case.cluster)
    last = short_zeros(source, case.cluster)
    want_data, want_zeros = want_data | (last & data), want_zeros - (last & data)
    last = half_sector(source, base, case.cluster) - want_data - want_zeros
    want_data, want_zeros = want_data | (last & data), want_zeros | (last & zeros)
    for what, numbers in (("is missing", (want_data | want_zeros) - data - zeros),
                          ("is zeros in the image, and no such", zeros & want_data),
                          ("is there, and equals the base", (data | zeros) - want_data - want_zeros),
                          ("is data, and all zeros", data & want_zeros)):
        if numbers and (case.is_exact or what.startswith("is missing")):
            raise Wrong(f"{len(numbers)} of {len(data | zeros)} clusters: one that {what}: cluster {min(numbers)}")


def check_above(path, case, chain, ranges):
    """Data of the image lies only where `ranges` of the chain are, which lie above the base."""
    unit = max(case.cluster, chain)
    allowed = set()
    for first, end in ranges:
        allowed.update(range(first // unit, round_up(end, unit) // unit))
    data, _ = allocated(path, case.cluster)
    wrong = {number for number in data if number * case.cluster // unit not in allowed}
    if wrong:
        raise Wrong(f"{len(wrong)} of {len(data)} clusters hold what the base has: cluster {min(wrong)}")


def restored(path, endpoint, how, state, work, what):
    """The image as a raw one again, by both programs."""
    size = os.stat(state).st_size
    ours, theirs = os.path.join(work, "ours.raw"), os.path.join(work, "theirs.raw")
    lunferry("copy", "-q", "--overwrite", *how, "-f", "qcow2", endpoint, ours)
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, theirs])
    for raw in (ours, theirs):
        if os.stat(raw).st_size != round_up(size, SECTOR):
            raise Wrong(f"{what}: {os.stat(raw).st_size} bytes, and {size} went in")
        os.truncate(raw, size)
        judge.compare_files(state, raw, False, what)
        os.unlink(raw)


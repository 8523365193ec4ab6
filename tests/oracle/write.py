#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/oracle/write.py [--seed N] [--cases N] [--only NAME] SUITE DIRECTORY

Has lunferry write qcow2 images, and qemu-img judge them: no error and no leak, the bytes of the source, what
was asked for, and no cluster that equals its backing image. SUITE is one of

  matrix      raw images, with and without a backing image: all pairs of properties, sizes and options
  behind      sources that have backing images themselves, the target naming one of those, or a copy of one
  increments  a disk that changes: each image names the one before it, and each is restored

The seed is printed (ORACLE_SEED; 1). ORACLE_CASES multiplies the number of cases. --only runs one case, as it is
named where it failed, and with --keep its files stay. With --url, DIRECTORY is written to by that URL, and with
--lun images without a backing image go there too. LUNFERRY is the program.
"""

import argparse
import concurrent.futures
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import traceback

import judge
import recipe
import write_judge
import write_recipe
from write_recipe import Case

FACTOR = float(os.environ.get("ORACLE_CASES", "1"))
COUNTS = {"matrix": 80, "behind": 16, "increments": 5}
GENERATIONS = 5


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", default=os.environ.get("ORACLE_SEED", "1"))
    parser.add_argument("--cases", type=int, default=0, help="how many (the suite's own number)")
    parser.add_argument("--only", default="", metavar="CASE", help="nothing but this one")
    parser.add_argument("--keep", action="store_true", help="the files of the cases stay")
    parser.add_argument("--url", default="", help="DIRECTORY as lunferry reaches it")
    parser.add_argument("--lun", default="", help="URL of a LUN, and ...")
    parser.add_argument("--lun-file", default="", help="... the file behind it")
    parser.add_argument("suite", choices=list(COUNTS))
    parser.add_argument("directory")
    return parser.parse_args()


class Work:
    """A case under way: its directories, its chance, and what was done."""

    def __init__(self, options, number):
        self.options = options
        self.number = number
        self.name = f"{options.suite}-{number}"
        self.directory = os.path.join(options.directory, self.name)
        self.aside = self.directory + ".work"
        self.rng = recipe.case_rng(options.seed, self.name)
        self.seen = judge.Seen()
        self.log = []

    def file(self, name):
        return os.path.join(self.directory, name)

    def endpoint(self, name):
        return f"{self.options.url}/{self.name}/{name}" if self.options.url else self.file(name)

    def copy(self, source, target, words):
        words = ["copy", "-q", "--overwrite", *words, source, target]
        self.log.append("lunferry " + shlex.join(words))
        judge.lunferry(*words)


# ---- suites -------------------------------------------------------------------------------------

def matrix(work):
    rng = random.Random(f"{work.options.seed}/pairs")
    case = write_recipe.pairwise(rng, work.number + 1)[-1]
    if work.options.url and case.size == "wide":
        case.size = "sectors"  # a raw base does not tell its holes there, and would be read to its end
    work.log.append(str(case))
    source, base, flat = write_recipe.make_pair(case, work.directory, work.aside, work.rng)
    recorded = os.path.basename(base) if base else None
    size = os.stat(source).st_size
    work.copy(source, work.endpoint("image.qcow2"), case.options(recorded))
    judge_image(work, case, "image.qcow2", source, flat)
    write_judge.check_facts(work.file("image.qcow2"), case, size, recorded)
    if work.options.lun and not base and size <= recipe.MIB * 16:
        onto_lun(work, case, source)


def judge_image(work, case, name, source, flat):
    path, endpoint = work.file(name), work.endpoint(name)
    write_judge.check(path)
    write_judge.check_allocation(path, case, source, flat)
    write_judge.check_bytes(path, endpoint, [], source)
    # NFS version 3 does not tell where a raw file has holes; and qemu knows nothing of parts of a sector.
    tells = not case.base.startswith("raw") or \
        not work.options.url and os.stat(flat).st_size % recipe.SECTOR == 0
    write_judge.check_map(path, endpoint, [], source, work.aside, work.seen, tells)
    count(work.seen, case)


def onto_lun(work, case, source):
    """The image fills the start of a LUN, on which something else was before."""
    judge.fill(work.options.lun_file, os.stat(work.options.lun_file).st_size)
    work.copy(source, work.options.lun, case.options(None))
    write_judge.check(work.options.lun_file)
    write_judge.check_bytes(work.options.lun_file, work.options.lun, [], source)
    work.seen["LUNs"] += 1


def count(seen, case):
    for axis in ("codec", "base", "extended"):
        if vars(case)[axis]:
            seen[f"{axis}"] += 1
    seen["what is left out told to the cluster"] += case.is_exact


def some_case(rng, **words):
    """Nothing of the source's: that is made elsewhere."""
    axes = {name: rng.choice(values) for name, values in write_recipe.AXES.items()}
    return Case(**dict(axes, **dict({"size": "sectors", "content": "mixed"}, **words)))


def behind(work):
    """A copy as it is, of what lies above one of the source's backing images."""
    rng = work.rng
    depth = rng.choice([2, 2, 3])
    layers = recipe.random_chain(rng, depth, data_file=None)
    chain = recipe.Chain(work.directory, rng)
    for layer in layers:
        layer.absolute, layer.data_file, layer.odd = False, None, 0
        layer.cluster = min(layer.cluster, recipe.MIB * 2)
        chain.add(layer.settle())
    work.log += [f"    {layer}" for layer in layers] + chain.commands
    flat = os.path.join(work.aside, "flat.raw")
    judge.qemu_raw(chain.top, chain.format, flat)
    keep = rng.randrange(depth - 1)  # this one and all behind it are what the target stands on
    base, base_format, until = name_base(work, chain, keep)
    case = some_case(rng, base=f"{base_format} same",
                     cluster=rng.choice([layers[-1].cluster] * 2 + [4 * recipe.KIB, 64 * recipe.KIB]))
    work.log.append(str(case))
    size = os.stat(flat).st_size
    work.copy(work.endpoint(chain.names[-1]), work.endpoint("image.qcow2"), case.options(base))
    path, endpoint = work.file("image.qcow2"), work.endpoint("image.qcow2")
    write_judge.check(path)
    write_judge.check_facts(path, case, size, base)
    write_judge.check_bytes(path, endpoint, [], flat)
    write_judge.check_map(path, endpoint, [], flat, work.aside, work.seen, not work.options.url)
    above = depth - 1 - keep if base == chain.names[keep] else 1
    ranges = lies_above(chain, above, until, case, size)
    write_judge.check_above(path, case, max(layer.cluster for layer in layers), ranges)
    count(work.seen, case)
    work.seen["a copy of the base"] += base != chain.names[keep]


def name_base(work, chain, keep):
    """(its name, its format, its bytes): one of the chain's images, or a copy of the first backing image."""
    rng = work.rng
    info = judge.run(["qemu-img", "info", "--output=json", "-f", chain.formats[keep], chain.names[keep]],
                     chain.directory)[0]
    size = json.loads(info)["virtual-size"]
    if rng.random() < .5:
        return chain.names[keep], chain.formats[keep], size
    keep = len(chain.names) - 2  # what it has to hold the same as
    flat, base_format = work.file("copy.raw"), rng.choice(["raw", "qcow2"])
    judge.qemu_raw(work.file(chain.names[keep]), chain.formats[keep], flat)
    size = os.stat(flat).st_size
    length = rng.choice([size, write_judge.round_up(max(size * 6 // 10, 1), recipe.SECTOR), size + 300 * recipe.KIB])
    os.truncate(flat, length)
    if length > size:  # something that the target must not show
        with open(flat, "r+b") as file:
            file.seek(size)
            file.write(rng.randbytes(length - size))
    if base_format == "qcow2":
        judge.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", flat, work.file("copy.qcow2")])
    work.log.append(f"copy.{base_format}: what {chain.names[keep]} shows, {length} bytes instead of {size}")
    return f"copy.{base_format}", base_format, min(size, length)


def lies_above(chain, above, until, case, size):
    """(start, end) of what cannot be left out: data of the images above the base, and all beyond its end."""
    text = judge.run(["qemu-img", "map", "--output=json", "-f", chain.format, chain.names[-1]],
                     chain.directory)[0]
    entries = json.loads(text)
    # Version 2 has no zero clusters, and -S 0 wants none.
    as_data = case.compat == "0.10" or "-S" in case.words
    ranges = []
    for entry in entries:
        start, end = entry["start"], entry["start"] + entry["length"]
        if entry["depth"] >= above:
            continue
        if entry["data"] or as_data:
            ranges.append((start, end))
        else:  # zeros in a cluster that has something else too
            ranges += [(start, min(end, write_judge.round_up(start, case.cluster))),
                       (max(start, recipe.round_to(end, case.cluster)), end)]
    ranges = [(start, end) for start, end in ranges if start < end]
    return ranges + ([(until, size)] if until < size else [])


def increments(work):
    """Each generation names the one before it, and holds what has changed since."""
    rng = work.rng
    disk = work.file("disk.raw")
    codec = rng.choice(write_recipe.AXES["codec"])
    cluster = rng.choice([4 * recipe.KIB, 64 * recipe.KIB, 64 * recipe.KIB, 2 * recipe.MIB])
    first = some_case(rng, base="", codec=codec, cluster=cluster, size="odd",
                      content=rng.choice(["mixed", "filesystem"]))
    write_recipe.make_raw(disk, rng, first.bytes(rng), first.content, cluster)
    states = []
    for number in range(GENERATIONS):
        case = first if number == 0 else some_case(rng, base="qcow2 same", codec=codec, cluster=cluster)
        work.log.append(str(case))
        states.append(os.path.join(work.aside, f"state-{number}.raw"))
        write_recipe.copy_sparse(disk, states[-1])
        name, base = f"gen-{number}.qcow2", f"gen-{number - 1}.qcow2" if number else None
        work.copy(disk, work.endpoint(name), case.options(base))
        write_judge.check(work.file(name))
        write_judge.check_allocation(work.file(name), case, states[-1], states[-2] if number else None)
        write_judge.check_facts(work.file(name), case, os.stat(disk).st_size, base)
        change_disk(disk, states, rng, cluster)
        count(work.seen, case)
    for number, state in enumerate(states):
        name = f"gen-{number}.qcow2"
        write_judge.restored(work.file(name), work.endpoint(name), ["--allow-backing=any"], state, work.aside,
                             f"generation {number}")
        work.seen["generations"] += 1


def change_disk(disk, states, rng, cluster):
    """Some of it, its length at times; and some of it becomes what it was."""
    if rng.random() < .4:
        size = os.stat(disk).st_size
        os.truncate(disk, max(1, int(size * rng.uniform(.7, 1.4))))
    write_recipe.change(disk, rng, rng.choice([0, 1, 5, 9]), cluster)
    if rng.random() < .4:
        with open(rng.choice(states), "rb") as old, open(disk, "r+b") as file:
            most = min(os.fstat(old.fileno()).st_size, os.fstat(file.fileno()).st_size)
            start = rng.randrange(most)
            old.seek(start)
            file.seek(start)
            file.write(old.read(min(300 * recipe.KIB, most - start)))


# ---- all of them --------------------------------------------------------------------------------

SUITES = {"matrix": matrix, "behind": behind, "increments": increments}


def run_case(options, number):
    """(name, what is wrong or None, what was seen)"""
    work = Work(options, number)
    wrong = None
    try:
        os.mkdir(work.directory)
        os.mkdir(work.aside)
        SUITES[options.suite](work)
    except judge.Wrong as what:
        wrong = str(what)
    except Exception:  # pylint: disable=broad-except
        wrong = traceback.format_exc()
    if wrong:
        wrong = "\n".join([f"FAILED {work.name}: {wrong}", "made by:"] + work.log)
    if not options.keep:
        shutil.rmtree(work.directory, ignore_errors=True)
        shutil.rmtree(work.aside, ignore_errors=True)
    return work.name, wrong, work.seen


def numbers(options):
    if options.only:
        return [int(options.only.rsplit("-", 1)[1])]
    return range(options.cases or max(1, int(COUNTS[options.suite] * FACTOR)))


def main():
    options = arguments()
    options.directory = os.path.realpath(options.directory)
    print(f"{options.suite}: seed {options.seed}, "
          + subprocess.run(["qemu-img", "--version"], check=True, stdout=subprocess.PIPE,
                           text=True).stdout.split("\n", maxsplit=1)[0], flush=True)
    seen, failed, cases = judge.Seen(), [], numbers(options)
    # One LUN: one case at a time.
    workers = 1 if options.lun else os.cpu_count()
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        for name, wrong, what in pool.map(run_case, [options] * len(cases), cases):
            seen.update(what)
            if wrong:
                failed.append(name)
                print(wrong, flush=True)
    print("seen: " + ", ".join(f"{word} {times}" for word, times in sorted(seen.items())))
    print(f"{len(cases) - len(failed)} of {len(cases)} as it should be"
          + (f"; not: {' '.join(failed)}" if failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

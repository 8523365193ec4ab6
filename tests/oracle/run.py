#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tests/oracle/run.py [--seed N] [--cases N] [--only NAME] SUITE DIRECTORY

Makes images with qemu-img and qemu-io and compares what lunferry reads from them with what qemu-img
does. SUITE is one of

  matrix   every version, size of cluster and compression, the other features taking turns
  random   images and chains by chance
  qcow     the same of version 1
  nfs      by chance, read from a directory that is exported as --url, and from a LUN as --lun
  damaged  copies of good images with damage: never a crash, a hang, or much memory

The images are made by chance, from the seed, which is printed (ORACLE_SEED; a new one each day that
nobody chooses one would be a test that fails for no reason: it is 1). ORACLE_CASES multiplies the number
of cases. --only runs one case, as it is named where it failed, and with --keep its files stay.
LUNFERRY is the program.
"""

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import traceback

import damage
import judge
import recipe

FACTOR = float(os.environ.get("ORACLE_CASES", "1"))
COUNTS = {"random": 24, "qcow": 8, "nfs": 6, "damaged": 14}
DAMAGES = 10  # of one image


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", default=os.environ.get("ORACLE_SEED", "1"))
    parser.add_argument("--cases", type=int, default=0, help="how many (the suite's own number)")
    parser.add_argument("--only", default="", metavar="CASE", help="nothing but this one")
    parser.add_argument("--keep", action="store_true", help="the files of the cases stay")
    parser.add_argument("--url", default="", help="nfs: DIRECTORY as lunferry reaches it")
    parser.add_argument("--lun", default="", help="nfs: URL of a LUN, and ...")
    parser.add_argument("--lun-file", default="", help="... the file behind it")
    parser.add_argument("suite", choices=["matrix"] + list(COUNTS))
    parser.add_argument("directory")
    return parser.parse_args()


# ---- cases --------------------------------------------------------------------------------------

def layers_of(options, number, rng):
    """The recipe of a case."""
    if options.suite == "matrix":
        depth, top = recipe.matrix()[number]
        return recipe.random_chain(rng, depth, **top)
    depth = rng.choice([1, 1, 2, 2, 3, 5])
    if options.suite == "qcow":
        return recipe.random_chain(rng, rng.choice([1, 2]), format="qcow")
    if options.suite == "damaged":
        # Small ones, so that what is damaged is what is read.
        layers = recipe.random_chain(rng, rng.choice([1, 1, 2]), size=rng.randint(1, 2000) * 512,
                                     resize=0, data_file=None,
                                     format=rng.choice(["qcow2"] * 4 + ["qcow"]))
        for layer in layers:
            layer.cluster = min(layer.cluster, 64 << 10)
            layer.size = min(layer.size, 4 << 20)
            layer.settle()
        return layers
    layers = recipe.random_chain(rng, depth)
    if options.suite == "nfs":
        for layer in layers:
            layer.absolute = False  # here, and not on the server
    return layers


def make(options, number, directory):
    rng = recipe.case_rng(options.seed, f"{options.suite}-{number}")
    layers = layers_of(options, number, rng)
    chain = recipe.Chain(directory, rng)
    for layer in layers:
        chain.add(layer)
    return chain, layers, rng


def note(seen, layers):
    seen["qcow"] += any(layer.format == "qcow" for layer in layers)
    seen["raw base"] += layers[0].format == "raw" and len(layers) > 1
    seen["data file"] += any(layer.data_file for layer in layers)
    seen["extended L2"] += any(layer.extended for layer in layers)


def allowed(chain, layers):
    return [f"--allow-backing={chain.directory}"] if any(layer.absolute for layer in layers) else []


def judge_chain(options, number, chain, layers, work, seen):
    rule = judge.Judge(work, seen)
    odd = any(layer.odd for layer in layers)
    snapshots = chain.snapshots
    if options.suite != "nfs":
        rule.check(chain.top, chain.top, chain.format, odd, snapshots, allowed(chain, layers), number)
        return
    name = os.path.basename(chain.directory)
    # NFS version 3 does not tell where a file has holes.
    rule.check(f"{options.url}/{name}/{chain.names[-1]}", chain.top, chain.format, odd, snapshots, (),
               number, layers[0].format != "raw")
    size = os.stat(chain.top).st_size
    if len(layers) == 1 and not layers[0].data_file and size <= os.stat(options.lun_file).st_size:
        judge_lun(options, number, chain, work, rule, odd)


def judge_lun(options, number, chain, work, rule, odd):
    """The image fills the start of a LUN, as an image that a hypervisor keeps on one."""
    with open(chain.top, "rb") as source, open(options.lun_file, "r+b") as target:
        shutil.copyfileobj(source, target)
    rule.check(options.lun, chain.top, chain.format, odd, chain.snapshots, (), number)


def judge_damages(options, chain, layers, rng, work, seen):
    sanitized = judge.is_sanitized()
    failures = []
    for number in range(DAMAGES):
        image, how = damage.damaged_copy(chain.top, f"damaged-{number}", rng)
        words = allowed(chain, layers)
        if chain.snapshots and rng.random() < .5:
            words = words + ["-l", rng.choice(chain.snapshots)[0]]
        try:
            status, target, _ = judge.judge_damaged(image, chain.format, work, words, sanitized)
            seen[f"status {status}"] += 1
            if status == 0 and "-l" not in words:
                compare_damaged(image, chain, target, work, seen)
            os.unlink(image)
        except judge.Wrong as wrong:
            failures.append(f"damaged-{number}: {'; '.join(how)}\n{wrong}")
    if failures:
        raise judge.Wrong("\n".join(failures))


def compare_damaged(image, chain, target, work, seen):
    """Where qemu-img reads it too, it reads the same."""
    if os.stat(target).st_size > judge.FILL_MOST:
        return
    raw = os.path.join(work, "qemu.raw")
    words = ["qemu-img", "convert", "-f", chain.format, "-O", "raw", os.path.basename(image),
             raw]
    status, _, _, _ = judge.outcome(words, cwd=judge.beside(image))
    if status == 0:
        judge.compare_files(raw, target, True, "copy of what is damaged")
        seen["damaged, and read alike"] += 1


def run_case(options, number):
    """(name, what is wrong or None, what was seen)"""
    name = f"{options.suite}-{number}"
    directory = os.path.join(options.directory, name)
    work = os.path.join(options.directory, name + ".work")
    seen = judge.Seen()
    chain, layers, wrong = None, [], None
    try:
        os.mkdir(work)
        chain, layers, rng = make(options, number, directory)
        note(seen, layers)
        if options.suite == "damaged":
            judge_damages(options, chain, layers, rng, work, seen)
        else:
            judge_chain(options, number, chain, layers, work, seen)
    except judge.Wrong as what:
        wrong = str(what)
    except Exception:  # pylint: disable=broad-except
        wrong = traceback.format_exc()
    if wrong:
        recipe_lines = [f"    {layer}" for layer in layers] + (chain.commands if chain else [])
        wrong = "\n".join([f"FAILED {name}: {wrong}", "made by:"] + recipe_lines)
    if not options.keep:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)
    return name, wrong, seen


def numbers(options):
    if options.only:
        return [int(options.only.rsplit("-", 1)[1])]
    if options.cases:
        return range(options.cases)
    if options.suite == "matrix":
        return range(len(recipe.matrix()))
    return range(max(1, int(COUNTS[options.suite] * FACTOR)))


def main():
    options = arguments()
    options.directory = os.path.realpath(options.directory)
    print(f"{options.suite}: seed {options.seed}, "
          + subprocess.run(["qemu-img", "--version"], check=True, stdout=subprocess.PIPE,
                           text=True).stdout.split("\n", maxsplit=1)[0], flush=True)
    seen, failed, cases = judge.Seen(), [], numbers(options)
    # One LUN: one case at a time.
    workers = 1 if options.suite == "nfs" else os.cpu_count()
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        for name, wrong, what in pool.map(run_case, [options] * len(cases), cases):
            seen.update(what)
            if wrong:
                failed.append(name)
                print(wrong, flush=True)
    print("seen: " + ", ".join(f"{word} {count}" for word, count in sorted(seen.items())))
    if options.suite == "matrix" and not (options.only or options.cases) and seen.missing():
        failed.append("nothing was seen of " + ", ".join(seen.missing()))
    print(f"{len(cases) - len(failed)} of {len(cases)} as it should be"
          + (f"; not: {' '.join(failed)}" if failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""digests.py FILE IMAGE: reads a digest file as docs/digests.md has it, and holds it against the bytes of the
raw IMAGE. Prints its root digest; ends with 1, and says why, where anything is not as it should be.
digests.py - IMAGE [BLOCK]: the root digest alone."""
import hashlib
import os
import struct
import sys

ZEROS = 1 << 63


def runs(path, block):
    """The runs of an image, as bytes."""
    kind, count, digests, out = None, 0, [], []

    def end():
        if kind is not None:
            out.append(struct.pack(">Q", count | (ZEROS if kind else 0)))
            out.extend(digests)

    with open(path, "rb") as image:
        while data := image.read(block):
            zeros = not data.strip(b"\0")
            if zeros != kind:
                end()
                kind, count, digests = zeros, 0, []
            count += 1
            if not zeros:
                digests.append(hashlib.sha256(data).digest())
    end()
    return b"".join(out)


def root(path, block, body):
    return hashlib.sha256(struct.pack(">IQ", block, os.path.getsize(path)) + body).digest()


def check(condition, text):
    if not condition:
        sys.exit("digests.py: " + text)


def main():
    name, image = sys.argv[1:3]
    if name == "-":
        block = int(sys.argv[3]) if len(sys.argv) > 3 else 256 << 10
        print(root(image, block, runs(image, block)).hex())
        return
    with open(name, "rb") as file:
        data = file.read()
    check(data[:8] == b"LUNFDIGS", "no magic")
    version, length, flags, block, size, file_size, mtime = struct.unpack(">IIIIQQq", data[8:48])
    (identity,) = struct.unpack(">I", data[80:84])
    body = runs(image, block)
    check((version, flags) == (1, 0), "version or flags")
    check(length == 84 + identity, "the length of the header")
    check(size == os.path.getsize(image) == file_size, "the size")
    check(mtime == os.stat(image).st_mtime_ns, "the mtime")
    check(data[length:-32] == body, "the blocks")
    check(data[48:80] == root(image, block, body), "the root")
    check(data[-32:] == hashlib.sha256(data[:-32]).digest(), "the checksum")
    print(data[48:80].hex())


main()

#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes and compares sparse files, however large their holes are.

    tests/sparse.py write FILE OFFSET+LENGTH...   data that depends on OFFSET only; FILE keeps its size
    tests/sparse.py compare A B                   is B, from its start on, what A is? B may be longer

Numbers take k, M, G and T. Holes are what the kernel says they are (lseek, SEEK_DATA); `compare` reads
all that is data on either side, so its answer is exact, and it takes as long as there is data. It
prints the first difference, and then ends with status 1.
"""

import errno
import os
import random
import sys

UNITS = {"k": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
STEP = 4 << 20


def number(text):
    if text[-1:] in UNITS:
        return int(text[:-1]) * UNITS[text[-1]]
    return int(text)


def seek(file, offset, whence, size):
    """As lseek(), but the end of the file where nothing of the kind follows."""
    try:
        return os.lseek(file, offset, whence)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return size


def data_ranges(file, size):
    """(start, end) of what is data in [0, size), in order."""
    end = 0
    while end < size:
        start = seek(file, end, os.SEEK_DATA, size)
        if start >= size:
            return
        end = min(seek(file, start, os.SEEK_HOLE, size), size)
        yield start, end


def piece(offset, length):
    """No two offsets have the same bytes, and no 64 bytes in a row are zeros."""
    return random.Random(offset).randbytes(length)


def write(path, pieces):
    with open(path, "r+b") as file:
        for words in pieces:
            offset, length = map(number, words.split("+"))
            file.seek(offset)
            file.write(piece(offset, length))


def read_all(file, offset, length):
    """Beyond the end, as where a hole is, there are zeros."""
    data = os.pread(file, length, offset)
    return data + bytes(length - len(data))


def first_difference(a, b, start, end):
    """The offset of the first byte in [start, end) that differs, or None."""
    for offset in range(start, end, STEP):
        length = min(STEP, end - offset)
        x, y = read_all(a, offset, length), read_all(b, offset, length)
        if x != y:
            return offset + next(i for i in range(length) if x[i] != y[i])
    return None


def compare(path_a, path_b):
    a, b = os.open(path_a, os.O_RDONLY), os.open(path_b, os.O_RDONLY)
    size = os.fstat(a).st_size
    if os.fstat(b).st_size < size:
        sys.exit(f"{path_b} has {os.fstat(b).st_size} bytes, {path_a} has {size}")
    differences = [first_difference(a, b, start, end)
                   for file in (a, b) for start, end in data_ranges(file, size)]
    found = [offset for offset in differences if offset is not None]
    if found:
        sys.exit(f"{path_a} and {path_b} differ at offset {min(found)}")


def main():
    words = sys.argv[1:]
    if len(words) > 2 and words[0] == "write":
        write(words[1], words[2:])
    elif len(words) == 3 and words[0] == "compare":
        compare(words[1], words[2])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()

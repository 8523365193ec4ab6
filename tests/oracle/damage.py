# SPDX-License-Identifier: LGPL-2.1-or-later
"""Damages copies of good images, by chance: whatever is wrong in an image, it is read or refused."""

import os
import struct

FIELD = 8  # bytes; most of what an image says of itself comes in such numbers


class Anatomy:
    """Where an image has what: the parts that are worth damaging."""

    def __init__(self, data):
        self.size = len(data)
        self.parts = {"header": range(0, min(120, self.size))}
        version = struct.unpack_from(">I", data, 4)[0]
        if version == 1:
            bits, l2_bits = data[32], data[33]
            size, l1_offset = struct.unpack_from(">Q", data, 24)[0], \
                struct.unpack_from(">Q", data, 40)[0]
            l1_entries = -(-size // (1 << (bits + l2_bits)))
            table, mask = 8 << l2_bits, (1 << 63) - 1
        else:
            bits = struct.unpack_from(">I", data, 20)[0]
            l1_entries, l1_offset, _, _, snapshots, snapshot_offset = struct.unpack_from(
                ">IQQIIQ", data, 36)
            table, mask = 1 << bits, 0x00fffffffffffe00
            if snapshots:
                self.add("snapshots", snapshot_offset, 64 * snapshots)
        # Extensions and names.
        self.add("extensions", 72, min(1 << bits, 1200))
        self.add("l1", l1_offset, 8 * l1_entries)
        compressed = []
        for number in range(l1_entries):
            entry = struct.unpack_from(">Q", data, l1_offset + 8 * number)[0] & mask
            if entry and entry + table <= self.size:
                self.add("l2", entry, table)
                compressed += self.compressed(data, entry, table, bits, version)
        for offset in compressed:
            self.add("compressed", offset, 200)

    @staticmethod
    def compressed(data, offset, table, bits, version):
        """Offsets in the file of some clusters that look compressed."""
        flag = 1 << (63 if version == 1 else 62)
        mask = (1 << (63 - bits if version == 1 else 70 - bits)) - 1
        entries = (entry for entry, in struct.iter_unpack(">Q", data[offset:offset + table]))
        return [entry & mask for entry in entries if entry & flag and entry & mask < len(data)][:50]

    def add(self, name, offset, length):
        """Parts of one kind that are far apart are one to choose from."""
        ranges = self.parts.setdefault(name, [])
        if isinstance(ranges, range):
            ranges = self.parts[name] = [ranges]
        if offset < self.size:
            ranges.append(range(offset, min(offset + length, self.size)))

    def place(self, rng, data):
        """A kind of part, and an offset in it; of tables, mostly where they say something."""
        kind = rng.choice([kind for kind, ranges in self.parts.items() if ranges])
        ranges = self.parts[kind]
        where = ranges if isinstance(ranges, range) else rng.choice(ranges)
        for _ in range(20):
            offset = rng.choice(where)
            if data[offset] or rng.random() < .1:
                break
        return kind, offset


def interesting(rng, size):
    """Numbers at which arithmetic goes wrong."""
    value = rng.choice([0, 1, 511, 512, size - 1, size, size + 65536, 1 << 31, (1 << 32) - 1, 1 << 40,
                        1 << 56, (1 << 62) - 512, 1 << 62, 1 << 63, (1 << 63) | 65536, (1 << 64) - 512,
                        (1 << 64) - 1, rng.getrandbits(64), rng.getrandbits(32),
                        rng.randrange(max(size, 1))])
    return value + rng.choice([0, 0, 1])


def damage(data, rng):
    """Changes data, a bytearray; returns a list of sentences that say how."""
    anatomy = Anatomy(bytes(data))
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3, 10])):
        kind, offset = anatomy.place(rng, data)
        offset = min(offset, len(data) - FIELD)
        how = rng.choice(["bit", "bit", "byte", "field", "field", "half", "copy", "cut"])
        if how == "cut" and rng.random() < .5:
            del data[max(offset, 24):]
            done.append(f"cut off at {len(data)}")
            break
        if how == "bit":
            data[offset] ^= 1 << rng.randrange(8)
        elif how == "byte":
            data[offset] = rng.choice([0, 1, 0x7f, 0x80, 0xff, rng.randrange(256)])
        elif how == "half":
            offset -= offset % 4
            struct.pack_into(">I", data, offset, interesting(rng, anatomy.size) & 0xffffffff)
        else:
            offset -= offset % FIELD
            value = interesting(rng, anatomy.size)
            if how == "copy":  # an entry that another place has, so that two share what they point to
                value = struct.unpack_from(">Q", data, rng.randrange(len(data) // 8) * 8)[0]
            struct.pack_into(">Q", data, offset, value & ((1 << 64) - 1))
        done.append(f"{kind} at {offset}: {how}, now {bytes(data[offset:offset + 8]).hex()}")
    return done


def damaged_copy(image, name, rng):
    """A copy of an image beside it, damaged. Returns its path and how."""
    with open(image, "rb") as file:
        data = bytearray(file.read())
    how = damage(data, rng)
    path = os.path.join(os.path.dirname(image), name)
    with open(path, "wb") as file:
        file.write(data)
    return path, how

# SPDX-License-Identifier: LGPL-2.1-or-later
"""XDR (RFC 4506), as much of it as NFSv3 needs."""

import struct


class Packer:
    """Each method returns the packer, so that a structure reads as one expression."""

    def __init__(self):
        self.parts = []

    def bytes(self):
        return b"".join(self.parts)

    def u32(self, *values):
        self.parts.extend(struct.pack(">I", value) for value in values)
        return self

    def u64(self, *values):
        self.parts.extend(struct.pack(">Q", value) for value in values)
        return self

    def fixed(self, data):
        """opaque[n]: n is a multiple of 4, or the rest is padded."""
        self.parts += [data, bytes(-len(data) % 4)]
        return self

    def opaque(self, data):
        """opaque<>"""
        return self.u32(len(data)).fixed(data)

    def string(self, text):
        return self.opaque(text.encode())


class Unpacker:
    """Raises ValueError where the data ends too early."""

    def __init__(self, data):
        self.data, self.at = memoryview(data), 0

    def fixed(self, length):
        end = self.at + length
        if end > len(self.data):
            raise ValueError("the call is too short")
        piece = self.data[self.at:end]
        self.at = end + -length % 4
        return bytes(piece)

    def u32(self):
        return int.from_bytes(self.fixed(4), "big")

    def u64(self):
        return int.from_bytes(self.fixed(8), "big")

    def opaque(self):
        return self.fixed(self.u32())

    def string(self):
        return self.opaque().decode()

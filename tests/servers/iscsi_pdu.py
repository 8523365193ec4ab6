# SPDX-License-Identifier: LGPL-2.1-or-later
"""iSCSI protocol data units (RFC 7143 11) and the CRC32C digest (13.1)."""

import dataclasses
import struct

NOP_OUT, COMMAND, TASK_MANAGEMENT, LOGIN, TEXT, DATA_OUT, LOGOUT = range(7)
NOP_IN, RESPONSE, TASK_MANAGEMENT_RESPONSE, LOGIN_RESPONSE, TEXT_RESPONSE, DATA_IN, \
    LOGOUT_RESPONSE = range(0x20, 0x27)
R2T, ASYNC_MESSAGE, REJECT = 0x31, 0x32, 0x3F

NO_TAG = 0xFFFFFFFF
HEADER = 48


def _crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def crc32c(data):
    """As it goes on the wire."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


@dataclasses.dataclass
class Pdu:
    """One that came in."""
    header: bytes
    data: bytes

    @property
    def opcode(self):
        return self.header[0] & 0x3F

    @property
    def immediate(self):
        return bool(self.header[0] & 0x40)

    @property
    def flags(self):
        return self.header[1]

    @property
    def final(self):
        return bool(self.header[1] & 0x80)

    @property
    def lun(self):
        return self.header[8:16]

    @property
    def tag(self):
        return self.word(16)

    @property
    def command_number(self):
        return self.word(24)

    def word(self, at):
        return struct.unpack(">I", self.header[at:at + 4])[0]


def data_length(header):
    return int.from_bytes(header[5:8], "big")


def make(opcode, flags, tag, numbers, *, bytes2=b"\0\0", lun=bytes(8), word20=NO_TAG,
         tail=bytes(12), data=b"", digest=False):
    """numbers: StatSN, ExpCmdSN, MaxCmdSN. word20: most often the Target Transfer Tag. tail: bytes
    36 to 47."""
    header = struct.pack(">BB2sI8sIIIII12s", opcode, flags, bytes2, len(data), lun, tag, word20,
                         *(number & 0xFFFFFFFF for number in numbers), tail)
    return header + (crc32c(header) if digest else b"") + data + bytes(-len(data) % 4)

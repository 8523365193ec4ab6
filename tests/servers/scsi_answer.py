# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a SCSI command ends: statuses (SAM-5 5.3.1) and sense data (SPC-4 4.5)."""

import dataclasses
import struct

GOOD, CHECK_CONDITION, BUSY, RESERVATION_CONFLICT, TASK_ABORTED = 0x00, 0x02, 0x08, 0x18, 0x40

STATUSES = {
    "GOOD": GOOD, "CHECK_CONDITION": CHECK_CONDITION, "CONDITION_MET": 0x04, "BUSY": BUSY,
    "RESERVATION_CONFLICT": RESERVATION_CONFLICT, "TASK_SET_FULL": 0x28, "ACA_ACTIVE": 0x30,
    "TASK_ABORTED": TASK_ABORTED,
}


@dataclasses.dataclass(frozen=True)
class Sense:
    key: int
    asc: int
    ascq: int
    information: int | None = None
    descriptors: bool = False  # the format: descriptors, not fixed
    deferred: bool = False

    @classmethod
    def parse(cls, words):
        """["3/11/00", "lba=7", "descriptors", "deferred"], all but the first optional."""
        key, asc, ascq = (int(part, 16) for part in words[0].split("/"))
        lba = next((int(word[4:]) for word in words if word.startswith("lba=")), None)
        return cls(key, asc, ascq, lba, "descriptors" in words, "deferred" in words)

    def encode(self):
        if self.descriptors:
            body = b"" if self.information is None \
                else struct.pack(">BBBBQ", 0, 10, 0x80, 0, self.information)
            return bytes([0x72 + self.deferred, self.key, self.asc, self.ascq, 0, 0, 0,
                          len(body)]) + body
        valid = self.information is not None and self.information < 1 << 32
        return struct.pack(">BBBIBIBBBBH", 0x70 + self.deferred + 0x80 * valid, 0, self.key,
                           self.information if valid else 0, 10, 0, self.asc, self.ascq, 0, 0, 0)

    def __str__(self):
        return f"{self.key:x}/{self.asc:02x}/{self.ascq:02x}"


@dataclasses.dataclass
class Answer:
    """needed: bytes that the command asked to be transferred, whatever the initiator expected."""
    status: int = GOOD
    sense: Sense | None = None
    data: bytes = b""
    needed: int = 0

    def __str__(self):
        if self.sense is not None:
            return str(self.sense)
        return next((n for n, v in STATUSES.items() if v == self.status), hex(self.status))


class CheckCondition(Exception):
    def __init__(self, key, asc, ascq):
        super().__init__()
        self.sense = Sense(key, asc, ascq)


class Conflict(Exception):
    """Ends a command with RESERVATION CONFLICT."""


def reply(data, length):
    """Data-In, cut to the allocation length."""
    return Answer(data=data[:length], needed=min(len(data), length))

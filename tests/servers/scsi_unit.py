# SPDX-License-Identifier: LGPL-2.1-or-later
"""A scripted logical unit: a disk (SPC-4, SBC-3) in memory.

Its properties, which a script may change at any time:

    blocks= block-size=        capacity
    serial= naa= vendor= product=     identity; naa is the 16 digits of an NAA designator
    wce=0|1       a volatile write cache. Writes without FUA live in it until SYNCHRONIZE CACHE. When
                  it is turned off it is written back
    fua=0|1       DPOFUA
    wp=0|1        write-protected
    max-transfer= blocks, VPD page B0h; 0: not told
    caching-page=0|1   whether mode page 08h exists
    reservations=0|1   whether persistent reservations exist
    types=5,7     the reservation types
    tas=0|1       whether an initiator is told that another one's reset has aborted its task
    there=0|1     whether there is such a logical unit

and those of scsi_provisioning.py.
"""

import struct

import scsi_provisioning
from scsi_answer import (CHECK_CONDITION, RESERVATION_CONFLICT, Answer, CheckCondition, Conflict,
                         Sense, reply)
from scsi_medium import Medium
from scsi_reservation import Reservations

# name -> (operation code, service action or None)
COMMANDS = {
    (0x00, None): "READY", (0x03, None): "SENSE", (0x12, None): "INQUIRY",
    (0x1A, None): "MODE_SENSE", (0x5A, None): "MODE_SENSE",
    (0x25, None): "CAPACITY", (0x9E, 0x10): "CAPACITY", (0x9E, 0x12): "LBA_STATUS",
    (0x28, None): "READ", (0x88, None): "READ", (0x2A, None): "WRITE", (0x8A, None): "WRITE",
    (0x35, None): "SYNC", (0x91, None): "SYNC", (0x93, None): "WRITE_SAME", (0x42, None): "UNMAP",
    (0x5E, None): "RESERVE_IN", (0x5F, None): "RESERVE_OUT", (0xA0, None): "REPORT_LUNS",
    (0xA3, 0x0C): "CODES",
}

# What a unit attention does not stop (SAM-5 5.14).
UNATTENDED = {"INQUIRY", "REPORT_LUNS", "SENSE"}
WRITES = {"WRITE", "WRITE_SAME", "UNMAP", "SYNC"}

TEXT = ("serial", "naa", "vendor", "product") + scsi_provisioning.TEXT
NUMBERS = ("blocks", "block-size", "wce", "fua", "wp", "max-transfer", "caching-page",
           "reservations", "tas", "there") + scsi_provisioning.NUMBERS


def command_name(cdb):
    code = cdb[0]
    action = cdb[1] & 0x1F if code in (0x9E, 0xA3) else None
    return COMMANDS.get((code, action), f"x{code:02x}")


def range_of(cdb, data=b""):
    """(LBA, blocks) of a command with such fields, or None; of an UNMAP, from its data."""
    if cdb[0] == 0x42 and len(data) == 24:
        return struct.unpack(">QI", data[8:20])
    if cdb[0] in (0x28, 0x2A, 0x35):
        return struct.unpack(">I", cdb[2:6])[0], struct.unpack(">H", cdb[7:9])[0]
    if cdb[0] in (0x88, 0x8A, 0x91, 0x93) or command_name(cdb) == "LBA_STATUS":
        return struct.unpack(">QI", cdb[2:14])
    return None


def has_fua(cdb):
    return cdb[0] in (0x28, 0x2A, 0x88, 0x8A) and bool(cdb[1] & 0x08)


class Unit(scsi_provisioning.Provisioning):
    """One logical unit. `nexuses()` gives all I_T nexuses that the target knows of."""

    def __init__(self, number, nexuses, luns):
        self.number = number
        self.medium = Medium()
        self.serial, self.naa = f"SCRIPT{number:04d}", f"6{number:015x}"
        self.vendor, self.product = "LUNFERRY", "SCRIPTED DISK"
        self.blocks, self.block_size = 16384, 512
        self.wce, self.fua, self.wp = 1, 1, 0
        self.max_transfer, self.caching_page, self.there = 0, 1, 1
        self.has_reservations = self.tas = 1
        self._begin_provisioning()
        self._nexuses, self._luns = nexuses, luns
        self.attentions = {}  # nexus -> [Sense]
        self.reservations = Reservations(
            lambda nexus, code: self.attend(Sense(6, *code), nexus))

    # ---- By script

    def set(self, words):
        """["serial=X", "wp=1"]. "size=8388608" stands for the blocks of that many bytes."""
        for word in words:
            name, _, value = word.partition("=")
            if name == "size":
                name, value = "blocks", int(value) // self.block_size
            if name == "types":
                self.reservations.types = {int(t) for t in value.split(",")}
            elif name == "image":
                self.medium.stable.load(value)
            elif name == "reservations":
                self.has_reservations = int(value)
            elif name in TEXT:
                setattr(self, name, value)
            elif name in NUMBERS:
                setattr(self, name.replace("-", "_"), int(value))
            else:
                raise ValueError(f"no such property: {name}")
        self._set_fill()
        if not self.wce:
            self.medium.flush()

    def attend(self, sense, nexus=None):
        """Queues a unit attention for one nexus or for all."""
        for each in self._nexuses() if nexus is None else [nexus]:
            queue = self.attentions.setdefault(each, [])
            if sense not in queue:
                queue.append(sense)

    def power_loss(self, quiet=False):
        """What is in the cache is gone. quiet: and nobody is told."""
        self.medium.lose_cache()
        self.reservations.power_loss()
        if not quiet:
            for queue in self.attentions.values():
                queue.clear()
            self.attend(Sense(6, 0x29, 0x00))

    def size(self):
        return self.blocks * self.block_size

    # ---- Commands

    def execute(self, nexus, cdb, data):
        """Carries one out. data: what the initiator sent."""
        name = command_name(cdb)
        try:
            if not self.there and name not in ("REPORT_LUNS", "INQUIRY"):
                raise CheckCondition(5, 0x25, 0x00)
            queue = self.attentions.get(nexus)
            if queue and name not in UNATTENDED:
                return Answer(CHECK_CONDITION, queue.pop(0))
            if name in WRITES or name in ("READ", "LBA_STATUS"):
                self.reservations.check(nexus, name in WRITES)
            if self.wp and name in WRITES - {"SYNC"}:
                raise CheckCondition(7, 0x27, 0x00)
            handler = getattr(self, "_" + name.lower(), None)
            if handler is None:
                raise CheckCondition(5, 0x20, 0x00)
            return handler(nexus, cdb, data)
        except CheckCondition as check:
            return Answer(CHECK_CONDITION, check.sense)
        except Conflict:
            return Answer(RESERVATION_CONFLICT)

    def _extent(self, cdb):
        """The byte range of a command, checked."""
        lba, blocks = range_of(cdb)
        if lba + blocks > self.blocks or lba > self.blocks:
            raise CheckCondition(5, 0x21, 0x00)
        return lba * self.block_size, blocks * self.block_size

    def _ready(self, _nexus, _cdb, _data):
        return Answer()

    def _sense(self, nexus, cdb, _data):
        queue = self.attentions.get(nexus)
        return reply((queue.pop(0) if queue else Sense(0, 0, 0)).encode(), cdb[4])

    def _inquiry(self, _nexus, cdb, _data):
        length = struct.unpack(">H", cdb[3:5])[0]
        if cdb[1] & 1:
            return reply(self._page(cdb[2]), length)
        kind = 0x00 if self.there else 0x7F
        return reply(struct.pack(">BBBBBBBB8s16s4s", kind, 0, 6, 2, 91, 0, 0, 2,
                                 padded(self.vendor, 8), padded(self.product, 16),
                                 padded("1", 4)).ljust(96, b"\0"), length)

    def _page(self, number):
        """Vital product data, SPC-4 7.8 and SBC-3 6.6."""
        if number == 0x00:
            body = bytes([0x00, 0x80, 0x83, 0xB0] + [0xB2] * (self.thin and self.page_b2))
        elif number == 0x80:
            body = self.serial.encode()
        elif number == 0x83:
            name = padded(self.vendor, 8) + self.serial.encode()
            naa = bytes.fromhex(self.naa)
            body = bytes([2, 1, 0, len(name)]) + name + bytes([1, 3, 0, len(naa)]) + naa
        elif number == 0xB0:
            body = self._limits_page()
        elif number == 0xB2 and self.thin and self.page_b2:
            body = self._provisioning_page()
        else:
            raise CheckCondition(5, 0x24, 0x00)
        return struct.pack(">BBH", 0, number, len(body)) + body

    def _mode_sense(self, _nexus, cdb, _data):
        page, long = cdb[2] & 0x3F, cdb[0] == 0x5A
        if page not in (0x08, 0x3F) or (page == 0x08 and not self.caching_page):
            raise CheckCondition(5, 0x24, 0x00)
        body = bytes([0x08, 0x12, 0x04 * self.wce]).ljust(20, b"\0") if self.caching_page else b""
        about = 0x80 * self.wp | 0x10 * self.fua
        if long:
            data = struct.pack(">HBBHH", 6 + len(body), 0, about, 0, 0) + body
            return reply(data, struct.unpack(">H", cdb[7:9])[0])
        return reply(bytes([3 + len(body), 0, about, 0]) + body, cdb[4])

    def _capacity(self, _nexus, cdb, _data):
        if cdb[0] == 0x25:
            return reply(struct.pack(">II", min(self.blocks - 1, 0xFFFFFFFF), self.block_size), 8)
        data = struct.pack(">QIBBB", self.blocks - 1, self.block_size, 0, 0,
                           self.thin * (0x80 | 0x40 * self.capacity_lbprz))
        return reply(data.ljust(32, b"\0"), struct.unpack(">I", cdb[10:14])[0])

    def _read(self, _nexus, cdb, _data):
        offset, length = self._extent(cdb)
        return reply(self.medium.read(offset, length), length)

    def _write(self, _nexus, cdb, data):
        offset, length = self._extent(cdb)
        data = data[:length]
        self.medium.write(offset, data, durable=not self.wce or has_fua(cdb))
        return Answer(needed=length)

    def _sync(self, _nexus, cdb, _data):
        offset, length = self._extent(cdb)
        self.medium.flush(offset, length or None)
        return Answer()

    def _reserve_in(self, _nexus, cdb, _data):
        if not self.has_reservations:
            raise CheckCondition(5, 0x20, 0x00)
        return reply(self.reservations.report(cdb[1] & 0x1F), struct.unpack(">H", cdb[7:9])[0])

    def _reserve_out(self, nexus, cdb, data):
        if not self.has_reservations:
            raise CheckCondition(5, 0x20, 0x00)
        return self.reservations.change(nexus, cdb[1] & 0x1F, cdb[2], data)

    def _report_luns(self, _nexus, cdb, _data):
        luns = b"".join(lun_field(number) for number in self._luns())
        return reply(struct.pack(">II", len(luns), 0) + luns, struct.unpack(">I", cdb[6:10])[0])


def lun_field(number):
    """SAM-5 4.7: peripheral device addressing up to 255, flat space addressing above."""
    return struct.pack(">HHI", number if number < 256 else 0x4000 | number, 0, 0)


def lun_number(field):
    number = struct.unpack(">H", field[:2])[0]
    return number & 0x3FFF if number >> 14 == 1 else number


def padded(text, size):
    return text.encode()[:size].ljust(size)

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a scripted logical unit does beside reading and writing (SBC-4): WRITE SAME, UNMAP, GET LBA
STATUS, and the pages that tell of them.

Its properties, beside those of scsi_unit.py. Numbers in blocks; 0 where it is a limit: not told.

    thin=0|1          LBPME: blocks can be unmapped. What was never written is not mapped
    lbprz=N           what unmapped blocks read as, the three bits of VPD page B2h: 1 zeros, 2 a pattern,
                      0 nobody knows. They read as bytes A5h, but for zeros
    capacity-lbprz=0|1    the bit in READ CAPACITY(16)
    page-b2=0|1       whether VPD page B2h exists
    lbpu= lbpws=0|1   whether the page promises UNMAP and WRITE SAME with UNMAP
    write-same=0|1    whether there is WRITE SAME without UNMAP, where the unit is not thin
    codes=0|1         whether REPORT SUPPORTED OPERATION CODES exists, which tells of it
    max-same= max-unmap= max-descriptors=     VPD page B0h. More blocks than told are refused
    granule= alignment=   VPD page B0h. Blocks are mapped and unmapped in such units: UNMAP leaves parts
                          of one as they are, WRITE SAME with UNMAP writes them
    odd=WORD          what is wrong with the answers to GET LBA STATUS, ODDITIES below; "": nothing
    max-status=N      descriptors in one such answer at the most
"""

import struct

from scsi_answer import Answer, CheckCondition, reply
from scsi_medium import UNIT, ZEROS

PATTERN = 0xA5

TEXT = ("odd",)
NUMBERS = ("thin", "lbprz", "capacity-lbprz", "page-b2", "lbpu", "lbpws", "write-same", "codes",
           "max-same", "max-unmap", "max-descriptors", "granule", "alignment", "max-status")

# Descriptors are [LBA, blocks, status].
ODDITIES = {
    "": lambda runs: runs,
    "none": lambda runs: [],
    "empty": lambda runs: [[runs[0][0], 0, 1]] + runs,
    "gap": lambda runs: [runs[0]] + runs[2:],
    "ahead": lambda runs: [[runs[0][0] + 1, runs[0][1], 1]],
    "elsewhere": lambda runs: [[0, 1, 1]] if runs[0][0] > 1 else [[1 << 40, 8, 1]],
    "backwards": lambda runs: runs[:1] + [[0, run[1], 1] for run in runs[1:]],
    "overlap": lambda runs: runs[:1] + [[run[0] - 1, run[1] + 1, 1] for run in runs[1:]],
    "twice": lambda runs: [run for run in runs for _ in (0, 1)],
    "anchored": lambda runs: [[lba, blocks, 2 * status] for lba, blocks, status in runs],
    "unknown": lambda runs: [[lba, blocks, 7 * status] for lba, blocks, status in runs],
}


class Provisioning:
    """The part of a Unit that this file is about."""

    def _begin_provisioning(self):
        self.thin, self.lbprz, self.capacity_lbprz, self.page_b2 = 0, 1, 1, 1
        self.lbpu = self.lbpws = 1
        self.write_same, self.codes = 0, 1
        self.max_same, self.max_unmap, self.max_descriptors = 0, 0xFFFFFFFF, 256
        self.granule, self.alignment = 128, 0
        self.odd, self.max_status = "", 4096

    def _set_fill(self):
        self.medium.stable.fill = PATTERN if self.thin and not self.lbprz & 1 else 0

    # ---- What is told

    def _limits_page(self):
        told = self.max_unmap, self.max_descriptors, self.granule
        # WSNZ: WRITE SAME of no blocks is refused; UGAVALID
        return struct.pack(">BBHIIIIIIIQ", 1, 0, 1, self.max_transfer, 0, 0,
                           *(told if self.thin else (0, 0, 0)),
                           0x80000000 | self.alignment if self.thin and self.alignment else 0,
                           self.max_same).ljust(60, b"\0")

    def _provisioning_page(self):
        return bytes([0, 0x80 * self.lbpu | 0x40 * self.lbpws | self.lbprz << 2, 2, 0])

    def _codes(self, _nexus, cdb, _data):
        """SPC-4, REPORT SUPPORTED OPERATION CODES: of one only."""
        if not self.codes or cdb[2] & 7 != 1 or cdb[3] != 0x93:
            raise CheckCondition(5, 0x20 if not self.codes else 0x24, 0x00)
        if not self.write_same and not self.thin:
            return reply(bytes([0, 1, 0, 0]), struct.unpack(">I", cdb[6:10])[0])
        usage = bytes([0x93, 0xE8]) + b"\xff" * 12 + b"\0\0"
        return reply(struct.pack(">BBH", 0, 3, 16) + usage, struct.unpack(">I", cdb[6:10])[0])

    # ---- Commands

    def _write_same(self, _nexus, cdb, data):
        unmaps, no_data = bool(cdb[1] & 0x08), bool(cdb[1] & 0x01)
        blocks = struct.unpack(">I", cdb[10:14])[0]
        if not self.thin and (unmaps or not self.write_same):
            raise CheckCondition(5, 0x24 if unmaps else 0x20, 0x00)
        if blocks == 0 or (unmaps and not self.lbpws):
            raise CheckCondition(5, 0x24, 0x00)
        if self.max_same and blocks > self.max_same:
            raise CheckCondition(5, 0x24, 0x00)
        offset, length = self._extent(cdb)
        block = bytes(self.block_size) if no_data else data[:self.block_size]
        if not any(block):
            self.medium.write(offset, ZEROS, durable=not self.wce, length=length)
            if unmaps and self.lbprz & 1:
                self._unmap_units(offset, length)
        else:
            self.medium.write(offset, block * (length // self.block_size), durable=not self.wce)
        return Answer(needed=0 if no_data else self.block_size)

    def _unmap_units(self, offset, length):
        """Those that lie in the range as a whole."""
        unit, phase = self.granule * self.block_size, self.alignment * self.block_size
        if unit % UNIT or phase % UNIT:
            raise ValueError("granule and alignment are to be whole units of the medium")
        first = (offset - phase + unit - 1) // unit * unit + phase
        last = (offset + length - phase) // unit * unit + phase
        if offset + length == self.size():
            last = self.size() // UNIT * UNIT
        if first < last:
            self.medium.unmap(first, last - first, durable=not self.wce)

    def _unmap(self, _nexus, _cdb, data):
        if not self.thin or not self.lbpu:
            raise CheckCondition(5, 0x20, 0x00)
        ranges = [struct.unpack(">QI", data[at:at + 12]) for at in range(8, len(data) - 15, 16)]
        if len(ranges) > self.max_descriptors or \
                sum(blocks for _, blocks in ranges) > self.max_unmap:
            raise CheckCondition(5, 0x26, 0x00)
        for lba, blocks in ranges:
            if lba + blocks > self.blocks:
                raise CheckCondition(5, 0x21, 0x00)
            self._unmap_units(lba * self.block_size, blocks * self.block_size)
        return Answer(needed=len(data))

    def _lba_status(self, _nexus, cdb, _data):
        """Runs of mapped and deallocated blocks."""
        if not self.thin:
            raise CheckCondition(5, 0x20, 0x00)
        lba, (room,) = struct.unpack(">Q", cdb[2:10])[0], struct.unpack(">I", cdb[10:14])
        if lba >= self.blocks:
            raise CheckCondition(5, 0x21, 0x00)
        step, runs = max(UNIT // self.block_size, 1), []
        mapped_ends = self.medium.mapped_ends()
        while lba < self.blocks and len(runs) < min(self.max_status, (room - 8) // 16 + 1):
            mapped = self.medium.is_mapped(lba * self.block_size)
            end = min((lba // step + 1) * step, self.blocks)
            while end < self.blocks and end - lba < 1 << 31:
                if not mapped and end * self.block_size >= mapped_ends:
                    end = min(self.blocks, lba + (1 << 31))
                elif self.medium.is_mapped(end * self.block_size) != mapped:
                    break
                else:
                    end = min(end + step, self.blocks)
            runs.append([lba, end - lba, 0 if mapped else 1])
            lba = end
        body = b"".join(struct.pack(">QIBBH", *run, 0, 0) for run in ODDITIES[self.odd](runs))
        return reply(struct.pack(">II", 4 + len(body), 0) + body, room)

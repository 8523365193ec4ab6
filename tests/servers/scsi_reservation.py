# SPDX-License-Identifier: LGPL-2.1-or-later
"""Persistent reservations of one logical unit (SPC-4 5.13, 6.15, 6.16)."""

import dataclasses
import struct

from scsi_answer import Answer, CheckCondition, Conflict

WRITE_EXCLUSIVE = {1, 5, 7}
EXCLUSIVE_ACCESS = {3, 6, 8}
ALL_REGISTRANTS = {7, 8}
REGISTRANTS = {5, 6, 7, 8}  # whoever is registered may do what the holder may

RESERVATIONS_PREEMPTED = (0x2A, 0x03)
RESERVATIONS_RELEASED = (0x2A, 0x04)
REGISTRATIONS_PREEMPTED = (0x2A, 0x05)


@dataclasses.dataclass(frozen=True)
class Stranger:
    """An initiator port that has no session here, for scripts."""
    initiator: str
    isid: str


FOREIGN = Stranger("iqn.2003-01.org.lunferry:another", "400000000001")


class Reservations:
    """Who is registered under which key, and who holds the reservation. A nexus is whatever the
    logical unit uses to tell initiator ports apart; `attention(nexus, (asc, ascq))` queues a unit
    attention for it."""

    def __init__(self, attention):
        self.keys = {}  # nexus -> key
        self.holder = None  # a nexus; any registered one for the types "all registrants"
        self.type = 0
        self.generation = 0
        self.types = {1, 3, 5, 6, 7, 8}
        self.persists = False  # APTPL: survives a loss of power
        self._attention = attention

    # ---- What a reservation allows

    def check(self, nexus, writes):
        """Raises Conflict where the nexus may not read, or write (SPC-4 table 66, SBC-3 table 4)."""
        if self.holder is None or nexus == self.holder:
            return
        if self.type in REGISTRANTS and nexus in self.keys:
            return
        if writes or self.type in EXCLUSIVE_ACCESS:
            raise Conflict()

    def power_loss(self):
        if not self.persists:
            self.keys.clear()
            self.holder = None

    # ---- PERSISTENT RESERVE IN

    def report(self, action):
        if action == 0:
            keys = b"".join(struct.pack(">Q", key) for key in self.keys.values())
            return struct.pack(">II", self.generation, len(keys)) + keys
        if action == 1:
            return self._report_reservation()
        if action == 2:
            mask = sum(1 << (8 + t if t < 8 else 0) for t in self.types)  # SPC-4 table 210
            # CRH 0, SIP_C 0, ATP_C 0, PTPL_C 1; TMV 1 and the type mask (SPC-4 6.15.4)
            return struct.pack(">HBBHH", 8, 0x01, 0x80 | int(self.persists), mask, 0)
        if action == 3:
            return self._report_full()
        raise CheckCondition(0x05, 0x24, 0x00)

    def _report_reservation(self):
        if self.holder is None:
            return struct.pack(">II", self.generation, 0)
        key = 0 if self.type in ALL_REGISTRANTS else self.keys[self.holder]
        return struct.pack(">IIQIBBH", self.generation, 16, key, 0, 0, self.type, 0)

    def _report_full(self):
        body = b""
        for nexus, key in self.keys.items():
            holds = self.holder is not None and \
                (nexus == self.holder or self.type in ALL_REGISTRANTS)
            transport = transport_id(nexus)
            body += struct.pack(">QIBBIHI", key, 0, int(holds), self.type if holds else 0, 0,
                                1, len(transport)) + transport
        return struct.pack(">II", self.generation, len(body)) + body

    # ---- PERSISTENT RESERVE OUT

    def change(self, nexus, action, scope_type, parameters):
        if len(parameters) < 24:
            raise CheckCondition(0x05, 0x1A, 0x00)  # parameter list length error
        key, new_key = struct.unpack(">QQ", parameters[:16])
        handler = {0: self._register, 1: self._reserve, 2: self._release, 3: self._clear,
                   4: self._preempt, 5: self._preempt, 6: self._register_ignoring}.get(action)
        if handler is None or scope_type >> 4 != 0:
            raise CheckCondition(0x05, 0x24, 0x00)
        if action in (0, 6):
            handler(nexus, key, new_key)
            self.persists = bool(parameters[20] & 1)
        else:
            if self.keys.get(nexus) != key:
                raise Conflict()
            handler(nexus, scope_type & 0x0F, new_key)
        return Answer(needed=len(parameters))

    def _register(self, nexus, key, new_key):
        if self.keys.get(nexus, 0) != key:
            raise Conflict()
        self._register_ignoring(nexus, key, new_key)

    def _register_ignoring(self, nexus, _key, new_key):
        self.generation += 1
        if new_key != 0:
            self.keys[nexus] = new_key
        elif self.keys.pop(nexus, None) is not None and nexus == self.holder:
            self._holder_left()

    def _holder_left(self):
        """SPC-4 5.13.11.3: a reservation of all registrants ends with the last one."""
        if self.type in ALL_REGISTRANTS and self.keys:
            self.holder = next(iter(self.keys))
        else:
            self._end(RESERVATIONS_RELEASED, besides=None)

    def _reserve(self, nexus, kind, _new_key):
        if kind not in self.types:
            raise CheckCondition(0x05, 0x24, 0x00)
        if self.holder is not None:
            if not self._holds(nexus) or self.type != kind:
                raise Conflict()
            return
        self.holder, self.type = nexus, kind

    def _holds(self, nexus):
        return nexus == self.holder or (self.type in ALL_REGISTRANTS and nexus in self.keys)

    def _release(self, nexus, kind, _new_key):
        if self.holder is None or not self._holds(nexus):
            return
        if self.type != kind:
            raise CheckCondition(0x05, 0x26, 0x04)  # invalid release of persistent reservation
        self._end(RESERVATIONS_RELEASED, besides=nexus)

    def _end(self, code, besides):
        if self.type in REGISTRANTS:
            for other in self.keys:
                if other != besides:
                    self._attention(other, code)
        self.holder = None

    def _clear(self, nexus, _kind, _new_key):
        self.generation += 1
        for other in self.keys:
            if other != nexus:
                self._attention(other, RESERVATIONS_PREEMPTED)
        self.keys.clear()
        self.holder = None

    def _preempt(self, nexus, kind, victim):
        """SPC-4 5.13.11.2.4. PREEMPT AND ABORT differs in the tasks only, which the target ends."""
        all_of_them = self.holder is not None and self.type in ALL_REGISTRANTS
        takes = self.holder is not None and \
            (victim == 0 if all_of_them else self.keys.get(self.holder) == victim)
        if victim == 0 and not takes:
            raise CheckCondition(0x05, 0x26, 0x00)
        if takes and kind not in self.types:
            raise CheckCondition(0x05, 0x24, 0x00)
        removed = [n for n, k in self.keys.items()
                   if n != nexus and (k == victim or (takes and all_of_them))]
        if not removed and not takes:
            raise Conflict()
        self.generation += 1
        for other in removed:
            del self.keys[other]
            self._attention(other, REGISTRATIONS_PREEMPTED)
        if takes:
            self.holder, self.type = nexus, kind
        elif self.holder in removed:
            self.holder = next(iter(self.keys))

    # ---- By script: another initiator that has no session here

    def foreign_reserve(self, nexus, key, kind):
        self.keys[nexus] = key
        self.holder, self.type = nexus, kind
        self.generation += 1

    def foreign_preempt(self, nexus, key):
        victims = [n for n in self.keys if n != nexus]
        for other in victims:
            del self.keys[other]
            self._attention(other, REGISTRATIONS_PREEMPTED)
        self.foreign_reserve(nexus, key, self.type if self.holder is not None else 5)


def transport_id(nexus):
    """Of an iSCSI initiator port (SPC-4 7.6.4.6): name, separator, ISID."""
    text = f"{nexus.initiator},i,0x{nexus.isid}".encode() + b"\0"
    text += bytes(-len(text) % 4)
    return struct.pack(">BBH", 0x45, 0, len(text)) + text

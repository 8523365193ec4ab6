# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small iSCSI initiator, to test the scripted target without lunferry: it can be rude, and sees every
byte. One command at a time unless told otherwise; it blocks."""

import socket
import struct
import sys

import harness

sys.path.insert(0, str(harness.ROOT / "tests" / "servers"))

import iscsi_pdu as pdu  # noqa: E402 (after the path is set)
from scsi_unit import lun_field  # noqa: E402

NAME = "iqn.2003-01.org.lunferry:scripted"


class Closed(Exception):
    """The target has closed the connection."""


class Initiator:
    """One session. isid: 12 hexadecimal digits."""

    def __init__(self, port, isid="800000000001", name="iqn.2003-01.org.lunferry:test", keys=()):
        self.socket = socket.create_connection(("127.0.0.1", port), harness.HANG)
        self.isid, self.name, self.keys = isid, name, dict(keys)
        self.command_number, self.tag = 100, 0
        self.digest = False
        self.segments = []  # lengths of the Data-In segments of the last command

    def close(self):
        self.socket.close()

    # ---- PDUs

    def send(self, opcode, flags, tag=None, *, lun=0, word20=0, tail=bytes(16), data=b"",
             immediate=False):
        """tail: bytes 32 to 47."""
        number = self.command_number
        if not immediate and opcode != pdu.DATA_OUT:
            self.command_number += 1
        header = struct.pack(">BBHI8sIIII16s", opcode | (0x40 if immediate else 0), flags, 0,
                             len(data), lun if isinstance(lun, bytes) else lun_field(lun),
                             self.tag if tag is None else tag, word20, number, 0, tail)
        digest = pdu.crc32c(header) if self.digest else b""
        self.socket.sendall(header + digest + data + bytes(-len(data) % 4))

    def _bytes(self, count):
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionError:
                more = b""
            if not more:
                raise Closed(len(data))
            data += more
        return data

    def receive(self):
        header = self._bytes(pdu.HEADER)
        if self.digest:
            assert self._bytes(4) == pdu.crc32c(header), "a header digest is wrong"
        length = pdu.data_length(header)
        return pdu.Pdu(header, self._bytes(length + -length % 4)[:length])

    # ---- Login and logout

    def log_in(self):
        """Returns (status class, detail)."""
        pairs = {"InitiatorName": self.name, "TargetName": NAME, "SessionType": "Normal",
                 "HeaderDigest": "None", "InitialR2T": "No", "ImmediateData": "Yes",
                 "MaxRecvDataSegmentLength": "8192", "MaxBurstLength": "65536",
                 "FirstBurstLength": "32768", **self.keys}
        text = b"".join(f"{key}={value}".encode() + b"\0" for key, value in pairs.items())
        self.send(pdu.LOGIN, 0x80 | 1 << 2 | 3, lun=bytes.fromhex(self.isid) + b"\0\0", data=text,
                  immediate=True)
        reply = self.receive()
        self.agreed = dict(item.decode().split("=", 1) for item in reply.data.split(b"\0") if item)
        self.digest = self.agreed.get("HeaderDigest") == "CRC32C"
        return reply.header[36], reply.header[37]

    # ---- Commands

    def start(self, cdb, *, read=0, write=b"", lun=0, immediate_data=True):
        """Sends a command, its data as immediate data; returns its tag."""
        self.tag += 1
        flags = 0x80 | (0x40 if read else 0) | (0x20 if write else 0)
        self.send(pdu.COMMAND, flags, lun=lun, word20=read or len(write),
                  tail=bytes(cdb).ljust(16, b"\0"), data=write if immediate_data else b"")
        self._out = write
        return self.tag

    def finish(self, tag):
        """Receives until the command ends: (status, sense "k/asc/ascq" or None, data, residual)."""
        data, self.segments = b"", []
        while True:
            reply = self.receive()
            if reply.opcode == pdu.R2T:
                offset, length = reply.word(40), reply.word(44)
                self.send(pdu.DATA_OUT, 0x80, reply.tag, word20=reply.word(20),
                          tail=struct.pack(">IIII", 0, 0, offset, 0),
                          data=self._out[offset:offset + length])
            elif reply.opcode == pdu.DATA_IN:
                assert reply.word(40) == len(data)
                data += reply.data
                self.segments.append(len(reply.data))
            if reply.opcode == pdu.RESPONSE or (reply.opcode == pdu.DATA_IN and reply.flags & 1):
                assert reply.tag == tag
                residual = reply.word(44) * {0: 0, 2: 1, 4: -1}[reply.flags & 6]
                return reply.header[3], sense_text(reply.data if reply.opcode == pdu.RESPONSE
                                                   else b""), data, residual

    def run(self, cdb, **arguments):
        return self.finish(self.start(cdb, **arguments))

    def settle(self, lun=0):
        """Takes the unit attentions that wait; returns them."""
        seen = []
        while (answer := self.run([0], lun=lun))[0] == 2:
            seen.append(answer[1])
        return seen

    # ---- Those that tests use most

    def write(self, lba, data, *, fua=False, **arguments):
        cdb = struct.pack(">BBQIH", 0x8A, 0x08 * fua, lba, len(data) // 512, 0)
        return self.run(cdb, write=data, **arguments)

    def read(self, lba, blocks, **arguments):
        return self.run(struct.pack(">BBQIH", 0x88, 0, lba, blocks, 0),
                        read=blocks * 512, **arguments)

    def flush(self):
        return self.run(struct.pack(">BBQIH", 0x91, 0, 0, 0, 0))

    def reserve_in(self, action):
        return self.run(struct.pack(">BB5xHB", 0x5E, action, 252, 0), read=252)[2]

    def reserve_out(self, action, key, new_key=0, kind=0):
        """Returns (status, sense)."""
        return self.run(struct.pack(">BBB2xIB", 0x5F, action, kind, 24, 0),
                        write=struct.pack(">QQ8x", key, new_key))[:2]

    def manage(self, function, lun=0, tag=0):
        """Task management; returns the response."""
        self.tag += 1
        self.send(pdu.TASK_MANAGEMENT, 0x80 | function, lun=lun, word20=tag, immediate=True)
        reply = self.receive()
        assert reply.opcode == pdu.TASK_MANAGEMENT_RESPONSE
        return reply.header[2]

    def ping(self):
        self.tag += 1
        self.send(pdu.NOP_OUT, 0x80, word20=pdu.NO_TAG, data=b"hello", immediate=True)
        return self.receive()


def sense_text(data):
    if not data:
        return None
    sense = data[2:]
    if sense[0] & 0x7F >= 0x72:
        return f"{sense[1]:x}/{sense[2]:02x}/{sense[3]:02x}"
    return f"{sense[2]:x}/{sense[12]:02x}/{sense[13]:02x}"

# SPDX-License-Identifier: LGPL-2.1-or-later
"""The scripted iSCSI target itself, by an initiator that is not lunferry's."""

import struct

import iscsi_case
from iscsi_initiator import Closed, Initiator, pdu

A, B = b"A" * 512, b"B" * 512
GOOD = (0, None)
CONFLICT = (0x18, None)
OTHER = "800000000002"


class Case(iscsi_case.Case):
    def session(self, server, isid="800000000001", settled=True, **arguments):
        initiator = Initiator(server.port, isid, **arguments)
        self.addCleanup(initiator.close)
        self.assertEqual(initiator.log_in(), (0, 0))
        if settled:
            initiator.settle()
        return initiator


class Protocol(Case):
    def test_login(self):
        server = self.target()
        one = self.session(server, settled=False, keys={
            "HeaderDigest": "CRC32C,None", "DataDigest": "CRC32C,None", "ErrorRecoveryLevel": 2,
            "MaxBurstLength": 16384, "X-org.lunferry.no": 1})
        self.assertEqual(one.agreed, {
            "HeaderDigest": "CRC32C", "DataDigest": "None", "ErrorRecoveryLevel": "0",
            "MaxBurstLength": "16384", "FirstBurstLength": "32768", "InitialR2T": "Yes",
            "ImmediateData": "Yes", "MaxRecvDataSegmentLength": "65536",
            "TargetPortalGroupTag": "1", "X-org.lunferry.no": "NotUnderstood"})
        self.assertEqual(one.settle(), ["6/29/00"])

    def test_refused(self):
        server = self.target("LOGIN 2: refuse 3/1")
        self.assertEqual(Initiator(server.port, keys={"TargetName": "iqn.x"}).log_in(), (2, 3))
        self.assertEqual(Initiator(server.port).log_in(), (3, 1))
        self.assertEqual([e["status"] for e in server.log("LOGIN")], ["2/3", "3/1"])

    def test_data_in_segments(self):
        one = self.session(self.target())
        data = bytes(range(256)) * 512  # 128 KiB
        self.assertEqual(one.write(8, data, immediate_data=False)[:2], GOOD)
        self.assertEqual(one.read(8, 256), (0, None, data, 0))
        # Segments of the 8192 bytes that this initiator declared.
        self.assertEqual(one.segments, [8192] * 16)

    def test_residuals(self):
        one = self.session(self.target("READ 3: short 100"))
        self.assertEqual(one.run([0x88, *bytes(12), 2], read=512)[:2], GOOD)
        self.assertEqual(one.run(struct.pack(">BBQI", 0x88, 0, 0, 1), read=1024)[3], 512)
        self.assertEqual(one.read(0, 1), (0, None, bytes(412), 100))
        self.assertEqual(one.run(struct.pack(">BBQI", 0x88, 0, 0, 3), read=512)[3], -1024)

    def test_window(self):
        server = self.target("--window", 2)
        one = self.session(server)
        reply = one.ping()
        self.assertEqual(reply.data, b"hello")
        # ExpCmdSN to MaxCmdSN: two of them.
        self.assertEqual(reply.word(32) - reply.word(28), 1)
        server.command("do window 1")
        self.assertEqual(one.read(0, 1)[:2], GOOD)
        self.assertEqual((lambda p: p.word(32) - p.word(28))(one.ping()), 0)

    def test_window_overrun_is_a_complaint(self):
        server = self.target("--window", 1, "READ: delay 100000")
        one = self.session(server)
        one.start(struct.pack(">BBQI", 0x88, 0, 0, 1), read=512)
        one.start(struct.pack(">BBQI", 0x88, 0, 0, 1), read=512)
        self.wait_until(lambda: "outside the window" in server.err_path.read_text(), "it complains")
        self.servers.remove(server)
        server.stop()

    def test_lun_that_is_not_there(self):
        one = self.session(self.target())
        self.assertEqual(one.run([0], lun=7)[1], "5/25/00")
        self.assertEqual(one.run([0x12, 0, 0, 0, 36], read=36, lun=7)[2][0], 0x7F)
        luns = one.run([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 252], read=252)[2]
        self.assertEqual(luns, struct.pack(">II8s", 8, 0, bytes(8)))

    def test_target_asks(self):
        server = self.target()
        one = self.session(server)
        server.command("do ping")
        ping = one.receive()
        self.assertEqual((ping.opcode, ping.tag), (pdu.NOP_IN, pdu.NO_TAG))
        one.send(pdu.NOP_OUT, 0x80, pdu.NO_TAG, word20=ping.word(20), immediate=True)
        one.ping()
        self.assertEqual([e["answers"] for e in server.log("PONG")], [ping.word(20)])
        server.command("do ask_logout")
        self.assertEqual(one.receive().header[36], 1)


class Sessions(Case):
    def test_reinstatement_aborts_first(self):
        """A delayed write of the old session must not land after the new one has begun."""
        server = self.target("WRITE 1: delay 100", "READ 1: delay 300")
        one = self.session(server)
        one.start(struct.pack(">BBQI", 0x8A, 8, 0, 1), write=A)
        one.ping()  # it has arrived
        one.close()
        two = self.session(server)
        self.assertEqual(server.log("WRITE")[0]["status"], "reinstated")
        self.assertEqual([e["reinstated"] for e in server.log("LOGIN")], [False, True])
        self.assertEqual(two.read(0, 1)[2], bytes(512))

    def test_another_isid_is_another_session(self):
        """The same, but nobody ends the old session's tasks: the write lands late."""
        server = self.target("WRITE 1: delay 100", "READ 1: delay 300")
        one = self.session(server)
        one.start(struct.pack(">BBQI", 0x8A, 8, 0, 1), write=A)
        one.ping()
        one.close()
        two = self.session(server, OTHER)
        self.assertEqual(server.log("WRITE"), [])
        self.assertEqual(two.read(0, 1)[2], A)

    def test_reset_aborts(self):
        server = self.target("WRITE 1: delay 100000")
        one, two = self.session(server), self.session(server, OTHER)
        one.start(struct.pack(">BBQI", 0x8A, 8, 0, 1), write=A)
        one.ping()  # it has arrived
        self.assertEqual(two.manage(5), 0)
        self.assertEqual(server.log("WRITE")[0]["status"], "TASK_ABORTED")
        self.assertEqual(two.settle(), ["6/29/03"])
        self.assertEqual(one.receive().header[3], 0x40)
        self.assertEqual(one.settle(), ["6/29/03"])

    def test_abort_task(self):
        server = self.target("READ 1: delay 100000", "TASK_MANAGEMENT 3: response 255")
        one = self.session(server)
        tag = one.start(struct.pack(">BBQI", 0x88, 0, 0, 1), read=512)
        self.assertEqual(one.manage(1, tag=tag), 0)
        self.assertEqual(one.manage(1, tag=tag), 1)
        self.assertEqual(one.manage(5), 255)
        self.assertEqual(one.settle(), [])

    def test_nexus_loss_is_told(self):
        server = self.target()
        self.session(server).close()
        self.assertEqual(self.session(server, settled=False).settle(), ["6/29/07"])


class Cache(Case):
    def stable(self, server, offset=0, length=512):
        server.command(f"save 0 {self.path('stable')}")
        with open(self.path("stable"), "rb") as file:
            file.seek(offset)
            return file.read(length)

    def test_power_loss_discards(self):
        server = self.target()
        one, two = self.session(server), self.session(server, OTHER)
        one.write(0, A)
        self.assertEqual(two.read(0, 1)[2], A)
        self.assertEqual((self.stable(server), server.command("cached 0")), (bytes(512), 512))
        server.command("do power_loss")
        self.assertEqual(one.read(0, 1)[1], "6/29/00")
        self.assertEqual(one.read(0, 1)[2], bytes(512))
        self.assertEqual(two.settle(), ["6/29/00"])

    def test_what_survives(self):
        server = self.target()
        one = self.session(server)
        one.write(0, A + A + A)
        one.write(1, B, fua=True)  # over older data that is in the cache only
        self.assertEqual(one.read(0, 3)[2], A + B + A)
        server.command("do power_loss")
        one.settle()
        self.assertEqual(one.read(0, 3)[2], bytes(512) + B + bytes(512))
        one.write(0, A)
        self.assertEqual(one.flush()[:2], GOOD)
        server.command("do power_loss")
        one.settle()
        self.assertEqual(one.read(0, 2)[2], A + B)

    def test_without_a_cache(self):
        server = self.target("--lun", "0 wce=0")
        one = self.session(server)
        one.write(0, A)
        self.assertEqual((self.stable(server), server.command("cached 0")), (A, 0))
        server.command("do set wce=1")
        one.write(0, B)
        self.assertEqual(self.stable(server), A)
        server.command("do set wce=0")
        self.assertEqual(self.stable(server), B)

    def test_half_a_flush(self):
        server = self.target("SYNC 1: power_loss half")
        one = self.session(server)
        for lba in range(4):
            one.write(2 * lba, A)
        self.assertEqual(one.flush()[1], "6/29/00")
        self.assertEqual([one.read(2 * lba, 1)[2] for lba in range(4)],
                         [A, A, bytes(512), bytes(512)])

    def test_zeros(self):
        server = self.target("--lun", "0 thin=1 wce=0")
        one = self.session(server)
        one.write(0, A * 256, immediate_data=False)
        unmap = struct.pack(">HH4xQI4x", 22, 16, 10, 100)
        self.assertEqual(one.run([0x42, 0, 0, 0, 0, 0, 0, 0, 24], write=unmap)[:2], GOOD)
        self.assertEqual(one.read(9, 102)[2], A + bytes(51200) + A)
        same = struct.pack(">BBQI", 0x93, 0x08, 0, 128)
        self.assertEqual(one.run(same, write=bytes(512))[:2], GOOD)
        self.assertEqual(one.read(127, 2)[2], bytes(512) + A)
        status = one.run(struct.pack(">BBQI", 0x9E, 0x12, 0, 252), read=252)[2]
        self.assertEqual(struct.unpack(">QIB", status[8:21]), (0, 128, 1))
        self.assertEqual(struct.unpack(">QIB", status[24:37]), (128, 128, 0))

    def test_a_tebibyte(self):
        server = self.target("--lun", f"0 size={1 << 40}")
        one = self.session(server)
        last = (1 << 31) - 1
        self.assertEqual(one.write(last, A)[:2], GOOD)
        self.assertEqual(one.write(last, A + A)[1], "5/21/00")
        self.assertEqual(one.read(last, 1)[2], A)
        capacity = one.run([0x9E, 0x10, *bytes(11), 32], read=32)[2]
        self.assertEqual(struct.unpack(">QI", capacity[:12]), (last, 512))
        one.flush()
        self.assertEqual(self.stable(server, last * 512), A)


class Reservations(Case):
    def two(self, *arguments):
        server = self.target(*arguments)
        return server, self.session(server), self.session(server, OTHER)

    def test_registrants_only(self):
        server, one, two = self.two()
        self.assertEqual(one.reserve_out(1, 0, kind=5), CONFLICT)  # not registered
        self.assertEqual(one.reserve_out(0, 0, 0x11), GOOD)
        self.assertEqual(one.reserve_out(0, 0, 0x12), CONFLICT)  # it has another key
        self.assertEqual(one.reserve_out(1, 0x11, kind=5), GOOD)
        self.assertEqual(two.write(0, A)[:2], CONFLICT)
        self.assertEqual(two.read(0, 1)[:2], GOOD)
        self.assertEqual(two.reserve_out(6, 0, 0x22), GOOD)
        self.assertEqual(two.write(0, A)[:2], GOOD)
        self.assertEqual(two.reserve_out(1, 0x22, kind=5), CONFLICT)
        self.assertEqual(one.reserve_in(0)[4:],
                         struct.pack(">IQQ", 16, 0x11, 0x22))
        self.assertEqual(one.reserve_in(1)[4:], struct.pack(">IQIBBH", 16, 0x11, 0, 0, 5, 0))
        self.assertEqual(one.reserve_in(2), struct.pack(">HBBHH", 8, 1, 0x80, 0xEA01, 0))
        full = one.reserve_in(3)
        self.assertIn(b"iqn.2003-01.org.lunferry:test,i,0x800000000002\0", full)
        self.assertEqual(one.reserve_out(2, 0x11, kind=5), GOOD)
        self.assertEqual(two.settle(), ["6/2a/04"])
        self.assertEqual(server.command("reservation 0"),
                         {"holder": None, "type": None,
                          "keys": {"800000000001": f"{0x11:016x}",
                                   "800000000002": f"{0x22:016x}"}})

    def test_preempt(self):
        server, one, two = self.two("WRITE 1: delay 100000")
        one.reserve_out(0, 0, 0x11)
        one.reserve_out(1, 0x11, kind=7)
        one.start(struct.pack(">BBQI", 0x8A, 8, 0, 1), write=A)
        one.ping()
        two.reserve_out(0, 0, 0x22)
        self.assertEqual(two.reserve_out(5, 0x22, 0, kind=7), GOOD)  # 0: all registrants
        self.assertEqual(one.receive().header[3], 0x40)
        self.assertEqual(one.settle(), ["6/2a/05"])
        self.assertEqual(one.write(0, A)[:2], CONFLICT)
        self.assertEqual(two.write(0, A)[:2], GOOD)
        self.assertEqual(server.command("reservation 0")["keys"],
                         {"800000000002": f"{0x22:016x}"})
        self.assertEqual(two.reserve_out(3, 0x22), GOOD)
        self.assertEqual(one.write(0, A)[:2], GOOD)

    def test_power_loss_ends_them(self):
        server, one, two = self.two()
        one.reserve_out(0, 0, 0x11)
        one.reserve_out(1, 0x11, kind=5)
        server.command("do power_loss")
        two.settle()
        self.assertEqual(two.write(0, A)[:2], GOOD)

    def test_a_stranger(self):
        server, one, _ = self.two()
        server.command("do reserve abc 5")
        self.assertEqual(one.write(0, A)[:2], CONFLICT)
        one.reserve_out(0, 0, 0x11)
        self.assertEqual(one.reserve_out(4, 0x11, 0xABC, kind=5), GOOD)
        self.assertEqual(one.write(0, A)[:2], GOOD)
        server.command("do preempt abc")
        self.assertEqual(one.settle(), ["6/2a/05"])
        self.assertEqual(one.write(0, A)[:2], CONFLICT)


class Rules(Case):
    def closed(self, function, *arguments):
        with self.assertRaises(Closed) as caught:
            function(*arguments)
        return caught.exception.args[0]

    def test_status_and_sense(self):
        one = self.session(self.target("READ 1: status BUSY", "READ 2: sense 3/11/00 lba=1",
                                       "READ 3: sense 4/44/00 descriptors lba=1", "READ 4: reject",
                                       "READ: sense 2/04/01 where lba=77"))
        self.assertEqual(one.read(0, 1)[0], 8)
        self.assertEqual(one.read(0, 1)[1], "3/11/00")
        self.assertEqual(one.read(0, 1)[1], "4/44/00")
        one.start(struct.pack(">BBQI", 0x88, 0, 0, 1), read=512)
        self.assertEqual(one.receive().opcode, pdu.REJECT)
        self.assertEqual(one.read(0, 1)[:2], GOOD)
        self.assertEqual(one.read(70, 8)[1], "2/04/01")

    def test_recovered_error(self):
        one = self.session(self.target("READ: sense 1/17/01 after"))
        self.assertEqual(one.read(0, 2), (2, "1/17/01", bytes(1024), 0))

    def test_conditions(self):
        server = self.target("READ: status BUSY where nexus=2 nth=2", "READ: sense 4/44/00 where "
                             "lun=1", "--lun", "0", "--lun", "1")
        one, two = self.session(server), self.session(server, OTHER)
        two.settle(lun=1)
        self.assertEqual([one.read(0, 1)[0] for _ in range(3)], [0, 0, 0])
        self.assertEqual([two.read(0, 1)[0] for _ in range(3)], [0, 8, 0])
        self.assertEqual(two.read(0, 1, lun=1)[1], "4/44/00")

    def test_cut_before_and_after(self):
        server = self.target("WRITE 1: cut", "WRITE 2: cut after")
        self.closed(self.session(server).write, 0, A)
        self.closed(self.session(server).write, 1, B)
        self.assertEqual(self.session(server).read(0, 2)[2], bytes(512) + B)
        self.assertEqual([(e["status"], e["executed"]) for e in server.log("WRITE")],
                         [("cut", False), ("cut", True)])

    def test_half_a_reply(self):
        server = self.target("READ 1: half")
        one = self.session(server)
        one.start(struct.pack(">BBQI", 0x88, 0, 0, 1), read=512)
        # A header and 232 of 512 bytes: half of 560.
        self.assertEqual(self.closed(one.receive), 232)

    def test_silence_is_of_one_session(self):
        server = self.target("READ 1: silence")
        one = self.session(server)
        one.start(struct.pack(">BBQI", 0x88, 0, 0, 1), read=512)
        self.session(server, OTHER).read(0, 1)
        one.socket.settimeout(0.05)
        self.assertRaises(TimeoutError, one.ping)

    def test_ignored_but_alive(self):
        one = self.session(self.target("READ 1: ignore"))
        one.start(struct.pack(">BBQI", 0x88, 0, 0, 1), read=512)
        self.assertEqual(one.ping().data, b"hello")

    def test_reordered(self):
        one = self.session(self.target("READ 1: hold 2 60000"))
        cdb = struct.pack(">BBQI", 0x88, 0, 0, 1)
        tags = [one.start(cdb, read=512) for _ in range(3)]
        self.assertEqual([one.receive().tag for _ in range(3)], [tags[1], tags[2], tags[0]])

    def test_early(self):
        server = self.target("WRITE 1: status TASK_SET_FULL early",
                             "--parameter", "InitialR2T=No")
        one = self.session(server)
        one.tag += 1
        one.send(pdu.COMMAND, 0x20, word20=1024, data=A,
                 tail=struct.pack(">BBQI", 0x8A, 0, 0, 2).ljust(16, b"\0"))
        self.assertEqual(one.finish(one.tag)[0], 0x28)
        one.send(pdu.DATA_OUT, 0x80, word20=pdu.NO_TAG, data=A,
                 tail=struct.pack(">IIII", 0, 0, 512, 0))
        self.assertEqual(one.write(0, A)[:2], GOOD)
        self.assertEqual(one.read(0, 2)[2], A + bytes(512))

    def test_another_lun_after_the_next_login(self):
        server = self.target("LOGIN 2: set serial=OTHER wp=1")
        page = [0x12, 1, 0x80, 0, 252]
        self.assertIn(b"SCRIPT0000", self.session(server).run(page, read=252)[2])
        two = self.session(server)
        self.assertIn(b"OTHER", two.run(page, read=252)[2])
        self.assertEqual(two.write(0, A)[1], "7/27/00")

    def test_mute(self):
        server = self.target("READ 1: mute")
        one = self.session(server)
        one.start(struct.pack(">BBQI", 0x88, 0, 0, 1), read=512)
        self.wait_until(lambda: server.log("READ"), "it is mute")
        two = Initiator(server.port)
        self.addCleanup(two.close)
        two.socket.settimeout(0.05)
        self.assertRaises(TimeoutError, two.log_in)

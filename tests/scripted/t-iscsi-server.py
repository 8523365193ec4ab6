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
        server = self.target("WRITE 1: until LOGIN 2")
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
        server = self.target("WRITE 1: until READ 1", "READ 2: until WRITE 1")
        one = self.session(server)
        one.start(struct.pack(">BBQI", 0x8A, 8, 0, 1), write=A)
        one.ping()
        one.close()
        two = self.session(server, OTHER)
        self.assertEqual(server.log("WRITE"), [])
        self.assertEqual(two.read(0, 1)[2], bytes(512))
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


class Provisioning(Case):
    """Units of 128 blocks, the first of which begins at LBA 0, where nothing else is said."""

    def unmap(self, one, *ranges):
        body = b"".join(struct.pack(">QI4x", *each) for each in ranges)
        data = struct.pack(">HH4x", 6 + len(body), len(body)) + body
        return one.run([0x42, *bytes(6), len(data)], write=data)[:2]

    def write_same(self, one, lba, blocks, unmaps, block=bytes(512)):
        cdb = struct.pack(">BBQI", 0x93, 0x08 * unmaps, lba, blocks)
        return one.run(cdb, write=block)[:2]

    def status(self, one, lba=0):
        data = one.run(struct.pack(">BBQI", 0x9E, 0x12, lba, 252), read=252)[2]
        self.assertEqual(struct.unpack(">I", data[:4])[0], len(data) - 4)
        return [struct.unpack(">QIB", data[at:at + 13]) for at in range(8, len(data), 16)]

    def filled(self, options=""):
        """256 blocks of A."""
        server = self.target("--lun", f"0 size=1048576 thin=1 {options}")
        one = self.session(server)
        one.write(0, A * 256, immediate_data=False)
        return server, one

    def test_unmap(self):
        for cache in 0, 1:
            server, one = self.filled(f"wce={cache}")
            self.assertEqual(self.status(one), [(0, 256, 0), (256, 1792, 1)])
            self.assertEqual(self.unmap(one, (10, 100), (100, 100)), GOOD)  # parts of units
            self.assertEqual(one.read(0, 256)[2], A * 256)
            self.assertEqual(self.unmap(one, (100, 200)), GOOD)
            self.assertEqual(one.read(127, 2)[2], A + bytes(512))
            self.assertEqual(self.status(one, 5), [(5, 123, 0), (128, 1920, 1)])
            one.write(130, B)
            one.flush()
            self.assertEqual(one.read(129, 3)[2], bytes(512) + B + bytes(512))
            self.assertEqual(self.unmap(one, (0, 4096)), (2, "5/21/00"))
            server.command("do set max-unmap=64")
            self.assertEqual(self.unmap(one, (0, 128)), (2, "5/26/00"))
            server.command("do set lbpu=0")
            self.assertEqual(self.unmap(one, (0, 1)), (2, "5/20/00"))

    def test_write_same(self):
        server, one = self.filled("wce=0")
        self.assertEqual(self.write_same(one, 10, 240, True), GOOD)
        self.assertEqual(one.read(0, 256)[2], A * 10 + bytes(240 * 512) + A * 6)
        self.assertEqual(self.write_same(one, 0, 256, True), GOOD)
        self.assertEqual(self.status(one), [(0, 2048, 1)])
        self.assertEqual(self.write_same(one, 0, 128, False), GOOD)
        self.assertEqual(self.status(one), [(0, 128, 0), (128, 1920, 1)])
        self.assertEqual(self.write_same(one, 3, 2, True, B), GOOD)
        self.assertEqual(one.read(2, 4)[2], bytes(512) + B + B + bytes(512))
        self.assertEqual(self.write_same(one, 0, 0, False), (2, "5/24/00"))
        server.command("do set max-same=8")
        self.assertEqual(self.write_same(one, 0, 9, False), (2, "5/24/00"))
        server.command("do set thin=0")
        self.assertEqual(self.write_same(one, 0, 8, False), (2, "5/20/00"))
        server.command("do set write-same=1")
        self.assertEqual(self.write_same(one, 0, 8, False), GOOD)
        self.assertEqual(self.write_same(one, 0, 8, True), (2, "5/24/00"))

    def test_alignment(self):
        _, one = self.filled("alignment=8 granule=64")
        self.assertEqual(self.unmap(one, (0, 256)), GOOD)
        self.assertEqual(self.status(one), [(0, 8, 0), (8, 192, 1), (200, 56, 0), (256, 1792, 1)])

    def test_pattern(self):
        for value in 2, 0:
            server, one = self.filled(f"wce=0 lbprz={value}")
            pattern = b"\xa5" * 512
            self.assertEqual(one.read(255, 2)[2], A + pattern)
            self.assertEqual(self.unmap(one, (0, 128)), GOOD)
            self.assertEqual(one.read(127, 2)[2], pattern + A)
            self.assertEqual(self.write_same(one, 0, 128, True), GOOD)
            self.assertEqual(one.read(127, 2)[2], bytes(512) + A)
            self.assertEqual(self.status(one), [(0, 256, 0), (256, 1792, 1)])
            server.command(f"save 0 {self.path('stable')}")
            self.assertEqual(self.path("stable").read_bytes(),
                             bytes(65536) + A * 128 + pattern * 1792)

    def test_odd_answers(self):
        answers = {
            "none": [], "empty": [(0, 0, 1), (0, 256, 0), (256, 1792, 1)], "gap": [(0, 256, 0)],
            "ahead": [(1, 256, 1)], "elsewhere": [(1 << 40, 8, 1)],
            "backwards": [(0, 256, 0), (0, 1792, 1)], "overlap": [(0, 256, 0), (255, 1793, 1)],
            "twice": [(0, 256, 0), (0, 256, 0), (256, 1792, 1), (256, 1792, 1)],
            "anchored": [(0, 256, 0), (256, 1792, 2)], "unknown": [(0, 256, 0), (256, 1792, 7)]}
        server, one = self.filled()
        for odd, answer in answers.items():
            server.command(f"do set odd={odd}")
            self.assertEqual(self.status(one), answer, odd)
        server.command("do set odd= max-status=1")
        self.assertEqual(self.status(one), [(0, 256, 0)])
        self.assertEqual([(e["lba"], e["blocks"]) for e in server.log("LBA_STATUS")][-1], (0, 252))

    def test_codes(self):
        server = self.target()
        one = self.session(server)
        ask = [0xA3, 0x0C, 1, 0x93, 0, 0, 0, 0, 0, 32]
        for words, support in (("", 1), ("write-same=1", 3), ("write-same=0 thin=1", 3)):
            if words:
                server.command(f"do set {words}")
            self.assertEqual(one.run(ask, read=32)[2][1], support)
        server.command("do set codes=0")
        self.assertEqual(one.run(ask, read=32)[1], "5/20/00")


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

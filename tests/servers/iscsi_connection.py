# SPDX-License-Identifier: LGPL-2.1-or-later
"""One connection to the scripted iSCSI target: login, then the full feature phase (RFC 7143).

Error recovery level 0, one connection to a session. What an initiator does wrong (a CmdSN outside the
window, data that nobody asked for) goes to standard error, which a test takes as a failure.
"""

import asyncio
import dataclasses
import enum
import socket
import struct

import iscsi_login
import iscsi_pdu as pdu
from iscsi_faults import Faults, Gone
from scsi_unit import command_name, lun_number

FUNCTIONS = {1: "ABORT TASK", 2: "ABORT TASK SET", 4: "CLEAR TASK SET", 5: "LOGICAL UNIT RESET",
             6: "TARGET WARM RESET", 7: "TARGET COLD RESET"}


@dataclasses.dataclass(frozen=True)
class Nexus:
    """An I_T nexus: which initiator port, at which target portal group."""
    initiator: str
    isid: str
    group: int


class Session:
    """Outlives its connection: tasks that are delayed go on until the session is reinstated."""

    def __init__(self, nexus, number, connection, reinstated):
        self.nexus, self.number = nexus, number
        self.connection = connection  # None once it is lost
        self.portal = connection.portal.number
        self.reinstated = reinstated
        self.tasks = {}  # initiator task tag -> Task


class State(enum.Enum):
    RECEIVING = 1  # of a WRITE's data
    EXECUTING = 2  # or delayed
    ENDED = 3


class Task:
    def __init__(self, session, request, call):
        self.session = session
        self.tag, self.lun = request.tag, lun_number(request.lun)
        self.lun_field = request.lun
        self.cdb = request.header[32:48]
        self.expected = request.word(20)  # Expected Data Transfer Length
        self.writes, self.reads = bool(request.flags & 0x20), bool(request.flags & 0x40)
        self.immediate = request.immediate
        self.state = State.RECEIVING
        self.data = bytearray()
        self.solicited_until = 0  # of the R2T under way
        self.sequence = 0  # R2TSN
        self.call = call  # its number among those of its name
        self.rules = []  # that apply to it
        self.executed = False
        self.job = None  # what carries it out, if it is delayed


class Connection:
    def __init__(self, target, portal, reader, writer):
        self.target, self.portal = target, portal
        self.reader, self.writer = reader, writer
        self.session = None
        self.login = self.isid = None
        self.login_call = (0, [])  # its number, and the rules for it
        self.digest = False
        self.silent = False
        self.status_number = 1
        self.expected_command = self.max_command = 0
        self.window = target.window
        self.held = []  # [replies to wait for, bytes]
        self.pings = 0
        self.faults = Faults(self)

    # ---- In and out ---------------------------------------------------------------------------

    async def serve(self):
        try:
            await self._swallow_if_silent()
            if await self._log_in():
                while True:
                    await self._swallow_if_silent()
                    await self._full_feature(await self._receive())
                    await self.writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, Gone):
            pass
        finally:
            self.writer.close()
            self._lost()

    async def _swallow_if_silent(self):
        while self.silent or self.target.mute:
            if not await self.reader.read(65536):
                raise Gone

    async def _receive(self):
        header = await self.reader.readexactly(pdu.HEADER)
        extra = await self.reader.readexactly(header[4] * 4)
        if self.digest and pdu.crc32c(header + extra) != await self.reader.readexactly(4):
            self.complain("a header digest is wrong")
            raise Gone
        length = pdu.data_length(header)
        if self.session and length > int(self.login.offers["MaxRecvDataSegmentLength"]):
            self.complain(f"a data segment of {length} bytes")
        data = await self.reader.readexactly(length + -length % 4)
        return pdu.Pdu(header, data[:length])

    def _numbers(self):
        free = self.window
        if self.session is not None:
            free -= sum(not task.immediate for task in self.session.tasks.values())
        limit = self.expected_command + free - 1
        # It never goes back (RFC 7143 11.4.9), though a script may make the window smaller.
        if (limit - self.max_command) & 0xFFFFFFFF < 1 << 31:
            self.max_command = limit & 0xFFFFFFFF
        return self.status_number, self.expected_command, self.max_command

    def make(self, opcode, flags, tag, *, status=True, **fields):
        """A PDU. status: it has a StatSN of its own."""
        data = pdu.make(opcode, flags, tag, self._numbers(), digest=self.digest, **fields)
        self.status_number = (self.status_number + status) & 0xFFFFFFFF
        return data

    def send(self, data):
        if not self.silent and not self.target.mute:
            self.writer.write(data)

    def reset(self):
        """Ends the connection with a TCP reset, what is not sent yet included."""
        self.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def complain(self, text):
        self.target.complain(f"session {self.session.number if self.session else '-'}: {text}")

    def _lost(self):
        session = self.session
        if session is None or session.connection is not self:
            return
        session.connection = None
        for task in list(session.tasks.values()):
            if task.job is None:
                self.target.end_task(task, "lost")

    # ---- Login --------------------------------------------------------------------------------

    async def _log_in(self):
        """Returns whether a session has begun."""
        request = await self._receive()
        if request.opcode != pdu.LOGIN:
            return False
        self.login_call = self.target.script.next("LOGIN")
        self.isid = request.header[8:14].hex()
        self.login = iscsi_login.Login(self.target.parameters, self.target.chap,
                                       self.target.mutual, self.portal.group)
        self.expected_command = request.command_number
        self.max_command = (request.command_number - 1) & 0xFFFFFFFF
        text = b""
        try:
            await self.faults.login(self.faults.relevant(self.login_call[1]))
            await self._swallow_if_silent()
            while True:
                text += request.data
                if request.flags & 0x40:  # C: the text goes on
                    self._answer_login(request, [], 0)
                elif self._login_step(request, text):
                    return True
                else:
                    text = b""
                await self.writer.drain()
                request = await self._receive()
        except iscsi_login.Refused as refused:
            self._record_login("%d/%d" % refused.status)
            self._answer_login(request, refused.args, 0, refused.status)
            await self.writer.drain()
            return False
        except (Gone, ConnectionError, asyncio.IncompleteReadError):
            self._record_login("gone")
            raise

    def _record_login(self, status):
        number, rules = self.login_call
        session = self.session
        self.target.record("LOGIN", number, [rule.text for rule in rules] or None,
                           initiator=self.login.declared.get("InitiatorName"), isid=self.isid,
                           portal=self.portal.number, session=session and session.number,
                           reinstated=bool(session and session.reinstated), status=status)

    def _login_step(self, request, text):
        """Answers one request. Returns whether that ended the login."""
        stage, wanted = request.flags >> 2 & 3, request.flags & 3
        pairs = self.login.answer(iscsi_login.parse_text(text), stage)
        self._check_names(request)
        go = bool(request.flags & 0x80) and self.login.may_leave(stage)
        flags = stage << 2 | (0x80 | wanted if go else 0)
        ends = go and wanted == iscsi_login.FULL_FEATURE
        if ends:
            nexus = Nexus(self.login.declared["InitiatorName"], self.isid, self.portal.group)
            self.session = self.target.begin_session(nexus, self)
            self._record_login("0/0")
        self._answer_login(request, pairs, flags)
        self.digest = ends and self.login.agreed["HeaderDigest"] == "CRC32C"
        return ends

    def _check_names(self, request):
        declared = self.login.declared
        if "InitiatorName" not in declared:
            raise iscsi_login.Refused(2, 7)  # missing parameter
        if declared.get("SessionType") != "Discovery" and \
                declared.get("TargetName") != self.target.name:
            raise iscsi_login.Refused(2, 3)  # not found
        if request.header[14:16] != b"\0\0":
            raise iscsi_login.Refused(2, 10)  # session does not exist

    def _answer_login(self, request, pairs, flags, status=(0, 0)):
        # ISID as given, and the TSIH of the new session.
        handle = self.session.number if self.session else 0
        lun = request.header[8:14] + struct.pack(">H", handle)
        self.send(self.make(pdu.LOGIN_RESPONSE, flags, request.tag, lun=lun, word20=0,
                            tail=bytes(status).ljust(12, b"\0"),
                            data=iscsi_login.make_text(pairs)))

    # ---- The full feature phase ---------------------------------------------------------------

    async def _full_feature(self, request):
        if request.opcode != pdu.DATA_OUT and not self._admit(request):
            return
        if request.opcode == pdu.COMMAND:
            await self._command(request)
        elif request.opcode == pdu.DATA_OUT:
            await self._data_out(request)
        elif request.opcode == pdu.NOP_OUT:
            self._nop_out(request)
        elif request.opcode == pdu.TASK_MANAGEMENT:
            await self._task_management(request)
        elif request.opcode == pdu.TEXT:
            self._text(request)
        elif request.opcode == pdu.LOGOUT:
            await self._logout(request)
        else:
            self.reject(request.header, 5)  # command not supported

    def _admit(self, request):
        """Command numbering, RFC 7143 4.2.2.1."""
        ahead = (request.command_number - self.expected_command) & 0xFFFFFFFF
        if request.immediate:
            return True
        if ahead != 0 or (self.max_command - request.command_number) & 0xFFFFFFFF >= 1 << 31:
            self.complain(f"CmdSN {request.command_number:#x} is outside the window: expected "
                          f"{self.expected_command:#x}, at most {self.max_command:#x}")
            return False
        self.expected_command = (self.expected_command + 1) & 0xFFFFFFFF
        return True

    async def _command(self, request):
        cdb = request.header[32:48]
        call, rules = self.target.script.next(command_name(cdb))
        task = Task(self.session, request, call)
        task.rules = self.faults.relevant(rules, task)
        if task.tag in self.session.tasks:
            self.complain(f"task tag {task.tag:#x} is in use")
        self.session.tasks[task.tag] = task
        task.data += request.data
        if request.data and self.login.agreed.get("ImmediateData") != "Yes":
            self.complain("immediate data was not agreed upon")
        if await self.faults.apply(task, "early"):
            return
        if request.flags & 0x80:
            await self._solicit_or_run(task)
        elif self.login.agreed.get("InitialR2T") != "No":
            self.complain("unsolicited data was not agreed upon")

    async def _solicit_or_run(self, task):
        missing = task.expected - len(task.data) if task.writes else 0
        if missing <= 0:
            await self._run(task)
            return
        length = min(missing, int(self.login.agreed.get("MaxBurstLength", 262144)))
        task.solicited_until = len(task.data) + length
        self.send(self.make(pdu.R2T, 0x80, task.tag, status=False, lun=task.lun_field,
                            word20=task.tag ^ 0x80000000,
                            tail=struct.pack(">III", task.sequence, len(task.data), length)))
        task.sequence += 1

    async def _data_out(self, request):
        task = self.session.tasks.get(request.tag)
        if task is None or task.state is not State.RECEIVING:
            return  # answered early, or aborted
        offset = request.word(40)
        limit = task.solicited_until or min(
            task.expected, int(self.login.agreed.get("FirstBurstLength", 65536)))
        if offset != len(task.data) or offset + len(request.data) > limit:
            self.complain(f"Data-Out at {offset} of {len(request.data)} bytes; wanted: "
                          f"{len(task.data)} to {limit}")
        task.data += request.data
        if request.final:
            await self._solicit_or_run(task)

    async def _run(self, task):
        task.state = State.EXECUTING
        if self.faults.takes_time(task):
            task.job = asyncio.get_running_loop().create_task(self._carry_out(task))
        else:
            await self._carry_out(task)

    async def _carry_out(self, task):
        try:
            if await self.faults.apply(task, "before"):
                return
            unit = self.target.units.get(task.lun, self.target.no_unit)
            answer = unit.execute(task.session.nexus, task.cdb, bytes(task.data))
            task.executed = answer.status == 0
            if task.executed and task.cdb[0] == 0x5F and task.cdb[1] & 0x1F == 5:
                self.target.abort_preempted(unit)  # PREEMPT AND ABORT
            if not await self.faults.apply(task, "after", answer):
                self.answer(task, answer)
        except Gone:
            self.writer.close()
            self.target.end_task(task, "lost")
            if task.job is None:
                raise

    # ---- Ends of commands ---------------------------------------------------------------------

    def answer(self, task, answer, hold=0, patience=0.0):
        """Data and status, in as many PDUs as it takes; behind the next `hold` replies."""
        if task.state is State.ENDED:
            return
        self.target.end_task(task, str(answer))
        if task.session.connection is not self:
            return
        if hold > 0:
            entry = [hold, lambda: self.send(self.encode(task, answer))]
            self.held.append(entry)
            # So that the last ones do not wait for ever.
            asyncio.get_running_loop().call_later(patience, self._release, entry)
        else:
            # A unit attention follows every answer that was there before it: a response fence
            # (RFC 7143 4.2.2.3.3).
            if answer.sense is not None and answer.sense.key == 6:
                self.release_all()
            self.reply(self.encode(task, answer))

    def reply(self, data):
        """Sends a reply, and those that waited for it."""
        self.send(data)
        for entry in list(self.held):
            entry[0] -= 1
            if entry[0] == 0:
                self._release(entry)

    def release_all(self):
        for entry in list(self.held):
            self._release(entry)

    def _release(self, entry):
        if entry in self.held:
            self.held.remove(entry)
            entry[1]()

    def encode(self, task, answer):
        expected = task.expected if task.reads or task.writes else 0
        moved = bytes(answer.data[:expected])
        left = expected - answer.needed
        flags = 0x02 if left > 0 else 0x04 if left < 0 else 0
        if moved and answer.sense is None:
            return self._data_in(task, moved, answer.status, flags, abs(left))
        sense = b""
        if answer.sense is not None:
            sense = answer.sense.encode()
            sense = struct.pack(">H", len(sense)) + sense
        data = self._data_in(task, moved, None, 0, 0)
        return data + self.make(pdu.RESPONSE, 0x80 | flags, task.tag, word20=0, data=sense,
                                bytes2=bytes([0, answer.status]),
                                tail=struct.pack(">III", 0, 0, abs(left)))

    def _data_in(self, task, data, status, flags, residual):
        """status None: it comes in a PDU of its own."""
        parts, sequence, offset = [], 0, 0
        burst = int(self.login.agreed.get("MaxBurstLength", 262144))
        while offset < len(data):
            end = min(offset + self.login.segment_out, len(data), offset // burst * burst + burst)
            final = 0x80 if end == len(data) or end % burst == 0 else 0
            last = end == len(data) and status is not None
            parts.append(self.make(
                pdu.DATA_IN, final | (0x01 | flags if last else 0), task.tag, status=last,
                bytes2=bytes([0, status if last else 0]),
                tail=struct.pack(">III", sequence, offset, residual if last else 0),
                data=data[offset:end]))
            sequence, offset = sequence + 1, end
        return b"".join(parts)

    # ---- Everything else ----------------------------------------------------------------------

    def reject(self, header, reason):
        self.send(self.make(pdu.REJECT, 0x80, pdu.NO_TAG, bytes2=bytes([reason, 0]), data=header))

    def ping(self):
        """A NOP-In that asks for an answer."""
        self.pings += 1
        self.send(self.make(pdu.NOP_IN, 0x80, pdu.NO_TAG, status=False, word20=self.pings))

    def ask_for_logout(self):
        self.send(self.make(pdu.ASYNC_MESSAGE, 0x80, pdu.NO_TAG, word20=0,
                            tail=struct.pack(">BBHHHI", 1, 0, 0, 0, 3, 0)))

    def _nop_out(self, request):
        if request.tag == pdu.NO_TAG:
            self.target.record("PONG", 0, None, session=self.session.number,
                               answers=request.word(20))
            return
        call, _ = self.target.script.next("NOP")
        self.target.record("NOP", call, None, session=self.session.number)
        self.reply(self.make(pdu.NOP_IN, 0x80, request.tag, data=request.data))

    def _text(self, request):
        pairs = []
        if ("SendTargets", "All") in iscsi_login.parse_text(request.data):
            pairs.append(("TargetName", self.target.name))
            pairs += [("TargetAddress", f"127.0.0.1:{portal.port},{portal.group}")
                      for portal in self.target.portals]
        self.send(self.make(pdu.TEXT_RESPONSE, 0x80, request.tag,
                            data=iscsi_login.make_text(pairs)))

    async def _task_management(self, request):
        function = request.flags & 0x7F
        lun = lun_number(request.lun)
        call, rules = self.target.script.next("TASK_MANAGEMENT")
        rules = self.faults.relevant(rules)
        response = await self.faults.task_management(rules)
        if response is None:
            response = self.target.manage(self.session, function, lun, request.word(20))
        self.target.record("TASK_MANAGEMENT", call, [rule.text for rule in rules] or None,
                           function=FUNCTIONS.get(function, str(function)), lun=lun,
                           status=response, session=self.session.number,
                           portal=self.portal.number)
        self.send(self.make(pdu.TASK_MANAGEMENT_RESPONSE, 0x80, request.tag, word20=0,
                            bytes2=bytes([response, 0])))

    async def _logout(self, request):
        call, rules = self.target.script.next("LOGOUT")
        rules = self.faults.relevant(rules)
        self.target.record("LOGOUT", call, [rule.text for rule in rules] or None,
                           session=self.session.number)
        await self.faults.task_management(rules)
        self.send(self.make(pdu.LOGOUT_RESPONSE, 0x80, request.tag, word20=0))
        await self.writer.drain()
        self.target.end_session(self.session, "logged out")
        raise Gone


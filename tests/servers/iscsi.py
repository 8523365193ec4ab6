#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A scripted iSCSI target (RFC 7143): does its protocol properly until a rule says otherwise.

    iscsi.py --log FILE [OPTION...] [RULE...]

    --lun "N PROPERTY=VALUE..."    a logical unit; scsi_unit.py lists the properties. Besides, size=BYTES,
                                   image=FILE. Default: "0", 8 MiB of blocks of 512 bytes, all zero,
                                   with a volatile cache
    --portals N                    ports to listen on (1); the command "ports" tells them
    --groups                       each portal is a target portal group of its own
    --chap USER:PASSWORD           wanted of initiators; --mutual USER:PASSWORD: given to them
    --parameter KEY=VALUE          what the target offers at login (iscsi_login.py)
    --window N                     commands that an initiator may have in flight (64)

The target's name is iqn.2003-01.org.lunferry:scripted. script.py says how rules are written, what the
log is and how a test controls a server. The calls that rules can name:

    READ WRITE SYNC WRITE_SAME UNMAP LBA_STATUS READY INQUIRY CAPACITY MODE_SENSE SENSE REPORT_LUNS
    CODES RESERVE_IN RESERVE_OUT xNN (another operation code)
    LOGIN LOGOUT TASK_MANAGEMENT NOP (which "any" leaves out) connect

The actions. Each may have the word early (when the command comes, before its data), before (before it
is executed: the default) or after (it is executed; not yet answered) among its arguments:

    status NAME|HEX                ends with this status: BUSY, TASK_SET_FULL, ...
    sense K/A/Q [lba=N] [descriptors] [deferred]      CHECK CONDITION
    cut | close                    resets | closes the connection
    half                           executed; half of the reply, then closed
    silence                        nothing on this connection is answered any more
    mute                           nor on any other one, for ever
    ignore                         this command is never answered; everything else is
    garbage                        bytes that are no iSCSI
    reject [REASON]                a Reject PDU
    delay MS | until CALL N        the others go on meanwhile. A session that loses its connection
                                   still executes what is delayed, until it is reinstated
    hold N [MS]                    answered behind the next N replies, after MS at the latest (50)
    short BYTES                    of Data-In, with a residual
    power_loss [half] [quiet]      what is in the caches is gone (half: but for the older half of it);
                                   29/00 for every I_T nexus (quiet: nobody is told)
    attention A/Q                  a unit attention for every I_T nexus
    set [lun=N] PROPERTY=VALUE...  of the command's logical unit; at LOGIN: of all
    resize BLOCKS                  and 2A/09
    reserve KEY TYPE               another initiator does so
    preempt KEY                    another initiator takes the reservation; all others lose their keys
    window N
    ping | ask_logout              a NOP-In that wants an answer | an asynchronous message

    at LOGIN:            refuse CLASS/DETAIL, move HOST:PORT, and most of the above
    at connect:          refuse
    at TASK_MANAGEMENT:  response N

"where KEY=VALUE..." ends an action, and makes it hold only for: nexus (the N-th that has ever logged
in), session, portal (1, 2, ...), lun, lba (that is in the command's range), nth (the N-th time that all
else of the rule holds).

Log entries of SCSI commands have: lun lba blocks fua status ("GOOD", "6/29/00", "cut", "aborted", ...)
executed session isid portal cdb. They come when a command ends. LOGIN: initiator isid session reinstated
status ("0/0"); TASK_MANAGEMENT: function status.

Commands, besides those of script.py:

    do ACTION [ARGUMENT...]   changes something now
    ports                     of all portals
    save LUN FILE             the content of stable storage, as a sparse file
    cached LUN                bytes that are only in the cache
    reservation LUN           keys, holder and type of the persistent reservation
"""

import argparse
import asyncio
import sys

import iscsi_faults
import script
from iscsi_connection import Connection, Session, State
from scsi_answer import TASK_ABORTED, Answer, Sense
from scsi_reservation import FOREIGN
from scsi_unit import Unit, command_name, has_fua, range_of

NAME = "iqn.2003-01.org.lunferry:scripted"
SIZE = 8 << 20


class Portal:
    def __init__(self, number, group):
        self.number, self.group, self.port = number, group, 0


class Target:
    """Everything that connections share."""

    def __init__(self, options, log):
        self.name, self.log = NAME, log
        self.chap, self.mutual = options.chap, options.mutual
        self.parameters = dict(options.parameter)
        self.window = options.window
        self.mute = False
        self.portals = [Portal(i + 1, i + 1 if options.groups else 1)
                        for i in range(options.portals)]
        self.sessions = {}  # nexus -> Session
        self.session_count = 0
        self.nexuses = []  # all that ever logged in
        self.times = {}  # how often each rule held, but for its condition "nth"
        self.units = {}
        for text in options.lun or ["0"]:
            number, *words = text.split()
            self.units[int(number)] = self._unit(int(number), words)
        self.no_unit = self._unit(0, ["there=0"])
        self.script = script.Script(options.rules, iscsi_faults.ACTIONS, pings=("NOP",))

    def _unit(self, number, words):
        unit = Unit(number, lambda: self.nexuses, lambda: sorted(self.units))
        # The size counts in blocks, whose size may come behind it.
        words = [f"size={SIZE}"] + words
        unit.set(sorted(words, key=lambda word: word.startswith("size=")))
        return unit

    def complain(self, text):
        print(text, file=sys.stderr, flush=True)

    def record(self, call, number, fault, **fields):
        self.log.write({"call": call, "n": number, "fault": fault, **fields})

    # ---- Connections and sessions

    async def accept(self, portal, reader, writer):
        _, rules = self.script.next("connect")
        if any(rule.action == "refuse" for rule in rules):
            writer.transport.abort()
            return
        await Connection(self, portal, reader, writer).serve()

    def begin_session(self, nexus, connection):
        """One of the same nexus is reinstated: its tasks end first (RFC 7143 6.3.5)."""
        old = self.sessions.get(nexus)
        if old is not None:
            self.end_session(old, "reinstated")
        self.session_count += 1
        session = Session(nexus, self.session_count, connection, old is not None)
        self.sessions[nexus] = session
        known = nexus in self.nexuses
        if not known:
            self.nexuses.append(nexus)
        for unit in self.units.values():
            # Power on, or I_T nexus loss where nothing worse is reported already.
            if not known:
                unit.attend(Sense(6, 0x29, 0x00), nexus)
            elif all(sense.asc != 0x29 for sense in unit.attentions.get(nexus, [])):
                unit.attend(Sense(6, 0x29, 0x07), nexus)
        return session

    def end_session(self, session, why):
        for task in list(session.tasks.values()):
            self.abort(task, why)
        if self.sessions.get(session.nexus) is session:
            del self.sessions[session.nexus]
        if session.connection is not None:
            session.connection.writer.close()
            session.connection = None

    def nexus_number(self, nexus):
        return self.nexuses.index(nexus) + 1

    # ---- Tasks

    def end_task(self, task, status):
        """Takes it off its session and into the log."""
        if task.state is State.ENDED:
            return
        task.state = State.ENDED
        session = task.session
        if session.tasks.get(task.tag) is task:
            del session.tasks[task.tag]
        extent = range_of(task.cdb, task.data) or (None, None)
        self.record(command_name(task.cdb), task.call, [rule.text for rule in task.rules] or None,
                    lun=task.lun, lba=extent[0], blocks=extent[1], fua=has_fua(task.cdb),
                    status=status, executed=task.executed, session=session.number,
                    isid=session.nexus.isid, portal=session.portal, cdb=task.cdb.hex())

    def abort(self, task, why):
        """Its initiator hears no more of it."""
        if task.job is not None:
            task.job.cancel()
        self.end_task(task, why)

    def abort_for_others(self, task):
        """Its initiator has not asked for that, and is told if TAS is 1 (SAM-5 5.6)."""
        if task.job is not None:
            task.job.cancel()
        if task.session.connection is not None and self.units[task.lun].tas:
            task.session.connection.answer(task, Answer(status=TASK_ABORTED))
        self.end_task(task, "aborted")

    def tasks(self):
        return [task for session in self.sessions.values() for task in session.tasks.values()]

    def abort_preempted(self, unit):
        """Those of who is not registered any more."""
        for task in self.tasks():
            if task.lun == unit.number and task.session.nexus not in unit.reservations.keys:
                self.abort_for_others(task)

    def manage(self, session, function, lun, tag):
        """Task management (RFC 7143 11.5); returns the response."""
        if function == 1:
            task = session.tasks.get(tag)
            if task is None:
                return 1  # task does not exist
            self.abort(task, "aborted")
            return 0
        if function not in (2, 4, 5, 6, 7):
            return 5  # not supported
        if function <= 5 and lun not in self.units:
            return 2  # LUN does not exist
        if function == 2:
            for task in [task for task in session.tasks.values() if task.lun == lun]:
                self.abort(task, "aborted")
            return 0
        for task in self.tasks():
            if function > 5 or task.lun == lun:
                if task.session is session:
                    self.abort(task, "aborted")
                else:
                    self.abort_for_others(task)
        if function >= 5:
            for unit in self.units.values():
                if function > 5 or unit.number == lun:
                    unit.attend(Sense(6, 0x29, 0x03))
        return 0

    # ---- By script

    def act(self, action, words, lun=None, connection=None, task=None):
        """Changes the state of one logical unit or, with lun None, of all."""
        units = list(self.units.values()) if lun is None else [self.units.get(lun, self.no_unit)]
        if action == "power_loss":
            self._power_loss("half" in words, "quiet" in words, task)
        elif action == "window":
            self.window = int(words[0])
            for session in self.sessions.values():
                if session.connection is not None:
                    session.connection.window = self.window
        elif action in ("ping", "ask_logout"):
            for each in [connection] if connection else \
                    [session.connection for session in self.sessions.values()]:
                if each is not None:
                    each.ping() if action == "ping" else each.ask_for_logout()
        else:
            if action == "set" and words[0].startswith("lun="):
                units, words = [self.units[int(words[0][4:])]], words[1:]
            for unit in units:
                self._change(unit, action, words)

    def _power_loss(self, half, quiet, besides):
        # What is still on its way meets the unit attention.
        for task in self.tasks():
            if task is not besides and task.job is not None:
                self.abort_for_others(task)
        for unit in self.units.values():
            if half:
                unit.medium.flush_half()
            unit.power_loss(quiet)

    def _change(self, unit, action, words):
        if action == "set":
            unit.set(words)
        elif action == "attention":
            asc, _, ascq = words[0].partition("/")
            unit.attend(Sense(6, int(asc, 16), int(ascq, 16)))
        elif action == "resize":
            unit.set([f"blocks={words[0]}"])
            unit.attend(Sense(6, 0x2A, 0x09))
        elif action == "reserve":
            unit.reservations.foreign_reserve(FOREIGN, int(words[0], 16), int(words[1]))
        elif action == "preempt":
            unit.reservations.foreign_preempt(FOREIGN, int(words[0], 16))
        else:
            raise ValueError(f"{action} has no meaning here")

    # ---- Commands of the control pipe

    def commands(self):
        return {"rule": self.script.add, "log": lambda _: self.log.count, "do": self._do,
                "ports": lambda _: [portal.port for portal in self.portals], "save": self._save,
                "cached": lambda text: self.units[int(text)].medium.cached(),
                "reservation": self._reservation}

    def _do(self, text):
        action, *words = text.split()
        self.act(action, words)

    def _save(self, text):
        number, _, path = text.partition(" ")
        unit = self.units[int(number)]
        unit.medium.stable.save(path, unit.size())

    def _reservation(self, text):
        state = self.units[int(text)].reservations
        return {"keys": {nexus.isid: f"{key:016x}" for nexus, key in state.keys.items()},
                "holder": state.holder.isid if state.holder else None,
                "type": state.type if state.holder else None}


def pair(text, separator):
    first, _, second = text.partition(separator)
    return first, second


def parse_options():
    parser = argparse.ArgumentParser(usage="iscsi.py --log FILE [OPTION...] [RULE...]")
    parser.add_argument("--log", required=True)
    parser.add_argument("--lun", action="append")
    parser.add_argument("--portals", type=int, default=1)
    parser.add_argument("--groups", action="store_true")
    parser.add_argument("--chap", type=lambda text: pair(text, ":"))
    parser.add_argument("--mutual", type=lambda text: pair(text, ":"))
    parser.add_argument("--parameter", action="append", default=[],
                        type=lambda text: pair(text, "="))
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("rules", nargs="*")
    return parser.parse_args()


async def main():
    options = parse_options()
    target = Target(options, script.Log(options.log))
    listeners = []
    for portal in target.portals:
        listener = await asyncio.start_server(
            lambda reader, writer, portal=portal: target.accept(portal, reader, writer),
            "127.0.0.1", 0)
        portal.port = listener.sockets[0].getsockname()[1]
        listeners.append(listener)
    await script.serve(target.portals[0].port, target.commands())
    for listener in listeners:
        listener.close()
    for session in list(target.sessions.values()):
        target.end_session(session, "ended")


if __name__ == "__main__":
    asyncio.run(main())

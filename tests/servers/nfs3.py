#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A scripted NFSv3 server, with MOUNT v3 on the same port of 127.0.0.1 (RFC 1813).

    nfs3.py --log FILE [--file NAME=PATH]... [--sparse NAME=SIZE]... [--max-read N] [--max-write N]
            [--class WORD=PART]... [--dump DIRECTORY] [RULE]...

It serves a tree in memory (tree.py): NAME ("/export/image") begins with the bytes of PATH, or as a hole
of SIZE bytes. script.py says how rules, the log and the commands work. The commands here, besides:

    list             {name: size} of all files
    dump DIRECTORY   writes there what is on stable storage of each file; --dump does so at the end
    restart          as the action below
    put NAME=PATH    somebody else makes the file NAME, durably, of the bytes of PATH; "put" in the log

CALLS are NFSv3's (NULL GETATTR SETATTR LOOKUP ACCESS READ WRITE CREATE REMOVE RENAME LINK READDIR FSSTAT
FSINFO COMMIT), MNT UMNT EXPORT of MOUNT, and "connect". NULL is a ping. With --class LOCK=PART, calls about files whose
name contains PART are LOCK_WRITE and so on, and are counted apart.

ACTIONS that change an answer:

    status S         NFS3ERR_S (for MNT: MNT3ERR_S) is answered, and nothing done
    short N          READ, WRITE: N bytes and no more are done and reported
    eof              READ: half the bytes, and that the file ends behind them
    sync             WRITE: is done and reported as FILE_SYNC, whatever was asked for
    verifier         WRITE, COMMIT: another write verifier in this answer, though nothing is lost
    garbage stream   random bytes instead of an answer
    garbage record   the same in a record (RFC 5531 11)
    garbage body     an answer, to this call, of random bytes

that change when it comes, or whether:

    delay MS         milliseconds later than others that come meanwhile
    until CALL N     as script.py says; it has been carried out by then
    hold N           kept until N answers are kept, or for 100 ms no other was, then all are sent, the
                     last one first
    ignore           it is not carried out, and never answered
    silence          so is this one and all that follow, pings too, on every connection
    cut before       the connection is closed instead of carrying it out
    cut after        ... instead of the answer
    cut half         ... after half of the answer
    cut reset        the connection is reset instead of carrying it out: answers that were sent just
                     before may be lost, whatever the log says. The other ways keep them

and that happen before it is carried out:

    forget           what was not committed is lost, and the write verifier is another one
    restart          forget, and all connections are closed, so that it is not carried out
    close MS         for so many milliseconds the port is closed; so are all connections
    stale            the handle of the file becomes stale; LOOKUP gives a new one
    touch            the file's times change
    size N           the file gets this size

For "connect" there are refuse (reset at once) and ignore (accepted, and never served). File handles
stay valid across all but stale.

THE LOG has, besides what script.py says, "conn" (the connection's number), "file" or "name" and "new",
"offset", "count", "stable" (as asked for), "committed" (as reported), "status" (null: none), "done"
(bytes of a READ or WRITE), "verifier", "executed" and "answered" (null: later, if the connection still
stands then).
"""

import argparse
import asyncio
import dataclasses
import pathlib
import random
import socket
import struct

from nfs3_procedures import (FAILURE_WORDS, NO_STATUS, OK, PROCEDURES, STATUS, WORDS, Failure,
                             Procedures)
from script import Log, Script, serve
from xdr import Packer, Unpacker

HOLD = 0.1  # seconds


@dataclasses.dataclass
class Fate:
    """What the rules make of one call."""

    node: object = None  # the file that it is about, None: not known
    status: int = None  # instead of carrying it out
    short: int = None
    eof: bool = False
    sync: bool = False
    verifier: bool = False
    garbage: str = None
    cut: str = None  # before, after, half, reset
    lost: bool = False  # it is not carried out, nor answered
    delay: int = 0  # ms
    until: tuple = None  # call, number
    hold: int = 0


# ---- Actions: functions of the server, the call's fate and the rule's arguments ------------------


def act_close(server, _, ms):
    server.close_port(int(ms) / 1000)


def act_cut(server, fate, where):
    if where not in ("before", "after", "half", "reset"):
        raise ValueError(f"cut {where}")
    fate.cut = where


def act_delay(_, fate, ms):
    fate.delay = int(ms)


def act_eof(_, fate):
    fate.eof = True


def act_forget(server, _):
    server.procedures.forget()


def act_garbage(_, fate, kind):
    if kind not in ("stream", "record", "body"):
        raise ValueError(f"garbage {kind}")
    fate.garbage = kind


def act_hold(_, fate, count):
    fate.hold = int(count)


def act_ignore(_, fate):
    fate.lost = True


def act_restart(server, fate):
    server.restart()
    fate.lost = True


def act_short(_, fate, count):
    fate.short = int(count)


def act_silence(server, fate):
    server.silent = fate.lost = True


def act_size(_, fate, size):
    fate.node.resize(int(size))


def act_stale(_, fate):
    fate.node.generation += 1


def act_status(_, fate, word):
    fate.status = STATUS[word]


def act_sync(_, fate):
    fate.sync = True


def act_touch(_, fate):
    fate.node.touch()


def act_until(_, fate, call, number):
    fate.until = call, int(number)


def act_verifier(_, fate):
    fate.verifier = True


ACTIONS = {name.removeprefix("act_"): function for name, function in globals().items()
           if name.startswith("act_")}


# ---- Connections ---------------------------------------------------------------------------------


def record(data):
    """One fragment, the last (RFC 5531 11)."""
    return struct.pack(">I", 0x80000000 | len(data)) + data


def accepted(xid, accept_stat, body=b""):
    """reply_body, with an empty verifier (RFC 5531 9)"""
    return record(Packer().u32(xid, 1, 0, 0, 0, accept_stat).bytes() + body)


class Connection(asyncio.Protocol):
    """
    Cuts what comes into records, and sends what the server answers. Nothing that a client can see is
    done before the call is in the log, hence call_soon().
    """

    def __init__(self, server):
        self.server = server
        self.transport = None
        self.number = 0
        self.closed = False  # in our direction
        self.ignored = False
        self.received = bytearray()
        self.fragments = bytearray()

    def connection_made(self, transport):
        self.transport = transport
        self.server.connected(self)

    def connection_lost(self, _):
        self.closed = True
        self.server.connections.discard(self)

    def data_received(self, data):
        if self.ignored or self.closed:
            return
        self.received += data
        while not self.closed and len(self.received) >= 4:
            mark = int.from_bytes(self.received[:4], "big")
            end = 4 + (mark & 0x7FFFFFFF)
            if len(self.received) < end:
                return
            self.fragments += self.received[4:end]
            del self.received[:end]
            if mark & 0x80000000:
                call, self.fragments = bytes(self.fragments), bytearray()
                self.server.called(self, call)

    def send(self, data):
        """False: there is nobody to send it to."""
        if self.closed:
            return False
        self.server.loop.call_soon(self.write, data)
        return True

    def write(self, data):
        if not self.transport.is_closing():
            self.transport.write(data)

    def close(self):
        """Our direction only; the client then closes the other. Closing both while requests still
        come would reset the connection, and the client might lose answers that we sent before."""
        if not self.closed:
            self.closed = True
            self.server.loop.call_soon(self.end_writing)

    def end_writing(self):
        try:
            self.transport.write_eof()
        except OSError:
            pass  # the client was faster

    def reset(self):
        self.closed = True
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                                           linger)
        self.server.loop.call_soon(self.transport.abort)


class Server:
    """What all connections share."""

    def __init__(self, options):
        self.loop = asyncio.get_running_loop()
        self.procedures = Procedures(options.max_read, options.max_write)
        self.script = Script(options.rules, ACTIONS.keys() | {"refuse"}, pings=("NULL",))
        self.log = Log(options.log)
        self.random = random.Random(1)
        self.connections = set()
        self.connection_count = 0
        self.classes = [text.split("=", 1) for text in options.classes]
        self.silent = False
        self.held = []  # (connection, data, entry)
        self.release_timer = None
        # Bound, and never listened on: keeps the port ours while it is closed.
        self.reservation = self.bound_socket(0)
        self.port = self.reservation.getsockname()[1]
        self.listener = None

    # ---- The port -----------------------------------------------------------------------------

    @staticmethod
    def bound_socket(port):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        return sock

    async def open_port(self):
        self.listener = await self.loop.create_server(lambda: Connection(self),
                                                      sock=self.bound_socket(self.port))

    def close_port(self, seconds):
        if self.listener:
            self.listener.close()
            self.listener = None
            self.loop.call_later(seconds, lambda: self.loop.create_task(self.open_port()))
        self.close_all()

    def close_all(self):
        for connection in list(self.connections):
            connection.close()

    def restart(self):
        self.procedures.forget()
        self.close_all()

    def connected(self, connection):
        number, rules = self.script.next("connect")
        connection.number = self.connection_count = self.connection_count + 1
        self.connections.add(connection)
        self.log.write({"call": "connect", "n": number, "conn": connection.number,
                        "fault": [rule.text for rule in rules] or None})
        for rule in rules:
            if rule.action == "refuse":
                connection.reset()
            elif rule.action == "ignore":
                connection.ignored = True
            else:
                raise ValueError(f"not for connect: {rule.action}")

    # ---- Calls --------------------------------------------------------------------------------

    def called(self, connection, data):
        args = Unpacker(data)
        xid, _, _, program, _, procedure = (args.u32() for _ in range(6))
        for _ in range(2):  # credentials, verifier
            args.u32()
            args.opaque()
        name = PROCEDURES.get((program, procedure))
        if name is None:
            connection.send(accepted(xid, 3))  # PROC_UNAVAIL
            return
        called = self.class_of(name, args) + name
        number, rules = self.script.next(called)
        entry = {"call": called, "n": number, "conn": connection.number, "fault": None,
                 "status": None, "executed": False, "answered": False}
        fate = Fate(lost=self.silent)
        self.apply(rules, fate, args, entry)
        if fate.cut == "before":
            connection.close()
        elif fate.cut == "reset":
            connection.reset()
        elif not fate.lost:
            entry["executed"] = fate.status is None
            body = self.carry_out(name, args, entry, fate)
            self.answer(connection, xid, body, entry, fate)
        self.log.write(entry)

    def class_of(self, name, args):
        """What is put before the call's name, "LOCK_" or nothing."""
        if not self.classes or name in NO_STATUS or name == "MNT":
            return ""
        args = Unpacker(bytes(args.data[args.at:args.at + 512]))
        node = self.procedures.tree.by_handle(args.opaque())
        about = node and self.procedures.tree.name_of(node) or ""
        if name in ("LOOKUP", "CREATE", "REMOVE", "RENAME"):
            about = args.string()
        return next((f"{word}_" for word, part in self.classes if part in about), "")

    def apply(self, rules, fate, args, entry):
        if not rules:
            return
        entry["fault"] = [rule.text.split(": ", 1)[1] for rule in rules]
        # All calls that rules about files are for begin with the file's handle.
        handle = Unpacker(bytes(args.data[args.at:]))
        try:
            fate.node = self.procedures.tree.by_handle(handle.opaque())
        except ValueError:
            pass
        for rule in rules:
            ACTIONS[rule.action](self, fate, *rule.arguments)

    def carry_out(self, name, args, entry, fate):
        status = fate.status
        if status is None:
            try:
                results = getattr(self.procedures, name)(args, entry, fate)
                status = OK
            except Failure as failure:
                status = failure.status
        entry["status"] = WORDS[status]
        if name in NO_STATUS:
            return results if status == OK else b""
        if status == OK:
            return Packer().u32(OK).bytes() + results
        return Packer().u32(status, *[0] * FAILURE_WORDS.get(name, 0)).bytes()

    def answer(self, connection, xid, body, entry, fate):
        data = accepted(xid, 0, body)
        if fate.garbage == "stream":
            data = self.random.randbytes(len(data))
        elif fate.garbage == "record":
            data = record(self.random.randbytes(len(data) - 4))
        elif fate.garbage == "body":
            data = accepted(xid, 0, self.random.randbytes(len(body)))
        if fate.cut == "after":
            connection.close()
        elif fate.cut == "half":
            connection.send(data[:len(data) // 2])
            connection.close()
        elif fate.hold:
            entry["answered"] = None
            self.hold(connection, data, fate.hold)
        elif fate.delay:
            entry["answered"] = None
            self.loop.call_later(fate.delay / 1000, connection.send, data)
        elif fate.until:
            entry["answered"] = None
            self.log.until(*fate.until).add_done_callback(lambda _: connection.send(data))
        else:
            entry["answered"] = connection.send(data)

    def hold(self, connection, data, count):
        self.held.append((connection, data))
        if self.release_timer:
            self.release_timer.cancel()
        if len(self.held) >= count:
            self.release()
        else:
            self.release_timer = self.loop.call_later(HOLD, self.release)

    def release(self):
        while self.held:
            connection, data = self.held.pop()
            connection.send(data)

    # ---- Commands -----------------------------------------------------------------------------

    def dump(self, directory):
        """What is on stable storage."""
        for name, node in self.procedures.tree.files():
            path = pathlib.Path(directory) / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                node.save(file)

    def list(self, _):
        return {name: node.size for name, node in self.procedures.tree.files()}

    def load(self, text):
        name, _, path = text.partition("=")
        self.procedures.tree.make_file(name).load(pathlib.Path(path).read_bytes())

    def put(self, text):
        self.load(text)
        self.log.write({"call": "put", "n": self.log.counts.get("put", 0) + 1, "fault": None})

    def commands(self):
        return {"rule": self.script.add, "log": lambda _: self.log.count, "list": self.list,
                "dump": self.dump, "put": self.put, "restart": lambda _: self.restart()}


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--file", action="append", default=[])
    parser.add_argument("--sparse", action="append", default=[])
    parser.add_argument("--max-read", type=int, default=1 << 20)
    parser.add_argument("--max-write", type=int, default=1 << 20)
    parser.add_argument("--class", action="append", default=[], dest="classes")
    parser.add_argument("--dump")
    parser.add_argument("rules", nargs="*")
    return parser.parse_args()


async def main():
    given = options()
    server = Server(given)
    tree = server.procedures.tree
    tree.make_directory("/export")
    for text in given.file:
        server.load(text)
    for text in given.sparse:
        name, _, size = text.partition("=")
        tree.make_file(name).resize(int(size))
    await server.open_port()
    await serve(server.port, server.commands())
    if given.dump:
        server.dump(given.dump)


asyncio.run(main())

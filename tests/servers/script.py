# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the scripted servers share: rules, the log, control by pipe.

A scripted server does its protocol properly until a rule says otherwise. A rule is a line:

    CALL [N | N-M | N-]: ACTION [ARGUMENT...]

    WRITE 7: status JUKEBOX         the seventh WRITE, counted over all connections from 1
    WRITE 3-5: status NOSPC         the third to the fifth
    COMMIT: delay 200               every one
    any 12: cut before              the twelfth call of any kind; pings, whose number is a matter
                                    of time, are not counted
    connect 2-: refuse              connections, counted from 1

Which calls and actions there are is the server's business and stands in its own head comment; all know

    until CALL N                    kept until N entries for CALL are in the log; the others go on. What
                                    a command of the test writes there counts, too

Several rules may hold for one call; they apply in the order in which they were given.

Every server is run as

    SERVER --log FILE [OPTION...] [RULE...]

and prints "port N" when it accepts connections. Then it reads commands, a line each, and answers each
with a line: "ok", or "error WORDS", or what the command asks for as JSON. All know

    rule RULE       adds one; its counts include the calls that were made before
    log             the number of entries in the log so far
    quit            end; SIGTERM and the end of standard input do the same

The log has a JSON object on a line for each call, in the order in which they came; a test may read it
at any time. Its fields are the server's, but for "call" (its name), "n" (its number among those of that
name) and "fault" (the actions that applied, or null).
"""

import asyncio
import json
import re
import signal
import sys

RULE = re.compile(r"(\w+)(?: (\d+)(-)?(\d+)?)?: (\w+)((?: [^ ]+)*)")


class Rule:
    """One line of a script."""

    def __init__(self, text):
        match = RULE.fullmatch(text)
        if not match:
            raise ValueError(f"not a rule: {text!r}")
        self.call, first, dash, last, self.action, arguments = match.groups()
        self.text = text
        self.first = int(first or 1)
        if first and not dash:
            self.last = self.first
        else:
            self.last = int(last) if last else sys.maxsize
        self.arguments = arguments.split()

    def matches(self, call, number):
        return self.call == call and self.first <= number <= self.last


class Script:
    """All rules, and how often each call was made."""

    def __init__(self, rules, actions, pings):
        """actions: the names that the server knows; pings: the calls that "any" leaves out."""
        self.actions, self.pings = actions, pings
        self.rules = []
        self.counts = {}
        for rule in rules:
            self.add(rule)

    def add(self, text):
        rule = Rule(text)
        if rule.action not in self.actions:
            raise ValueError(f"no such action: {rule.action}; known: {' '.join(self.actions)}")
        self.rules.append(rule)

    def _count(self, name):
        self.counts[name] = self.counts.get(name, 0) + 1
        return self.counts[name]

    def next(self, call):
        """Counts a call. Returns its number and the rules that hold for it."""
        number = self._count(call)
        total = 0 if call in self.pings or call == "connect" else self._count("any")
        return number, [rule for rule in self.rules
                        if rule.matches(call, number) or rule.matches("any", total)]


class Log:
    """A JSON object on a line for each call."""

    def __init__(self, path):
        self.file = open(path, "w", encoding="utf-8")
        self.count = 0
        self.counts = {}  # by call
        self.waiting = []  # (call, how many, future)

    def write(self, entry):
        print(json.dumps(entry), file=self.file, flush=True)
        self.count += 1
        call = entry["call"]
        self.counts[call] = self.counts.get(call, 0) + 1
        for each in list(self.waiting):
            if self._has(*each[:2]):
                self.waiting.remove(each)
                if not each[2].cancelled():
                    each[2].set_result(None)

    def _has(self, call, number):
        return self.counts.get(call, 0) >= number

    def until(self, call, number):
        """A future that is done when so many entries for the call are there."""
        future = asyncio.get_running_loop().create_future()
        if self._has(call, number):
            future.set_result(None)
        else:
            self.waiting.append((call, number, future))
        return future


async def serve(port, commands):
    """Says that the port is open, carries out commands until the end.

    commands: name -> function(argument text) that returns None or what json can take; a ValueError
    or OSError becomes an "error" line.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    loop.add_signal_handler(signal.SIGTERM, reader.feed_eof)
    print(f"port {port}", flush=True)
    while line := (await reader.readline()).decode().strip():
        name, _, argument = line.partition(" ")
        if name == "quit":
            break
        try:
            if name not in commands:
                raise ValueError(f"no such command: {name}")
            answer = commands[name](argument)
            print("ok" if answer is None else json.dumps(answer), flush=True)
        except (ValueError, OSError) as error:
            print(f"error {error}", flush=True)

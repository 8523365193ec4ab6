# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a script can do to the commands of a connection. The list is in the head of iscsi.py."""

import asyncio

from iscsi_login import Refused
from scsi_answer import STATUSES, Answer, Sense
from scsi_unit import range_of

STAGES = ("early", "before", "after")

# Of what is in the middle of something only after the execution.
AFTERWARDS = {"half", "hold", "short"}

# Ends of a command, or changes to its reply.
ENDS = {"status", "sense", "cut", "close", "silence", "mute", "ignore", "garbage", "reject", "delay",
        "half", "hold", "short", "until"}
STATE = {"power_loss", "attention", "set", "resize", "reserve", "preempt", "window", "ping",
         "ask_logout"}
OTHER = {"refuse", "move", "response"}
# What makes sense at any call.
ANYWHERE = {"cut", "close", "silence", "mute", "garbage", "delay"} | STATE
ACTIONS = sorted(ENDS | STATE | OTHER)


class Gone(Exception):
    """The connection has been ended, or is to be."""


def conditions(rule):
    """{"nexus": 2} of "where nexus=2"; they end the arguments."""
    words = rule.arguments
    if "where" not in words:
        return {}
    return {key: int(value) for key, _, value in
            (word.partition("=") for word in words[words.index("where") + 1:])}


def arguments(rule):
    words = rule.arguments
    if "where" in words:
        words = words[:words.index("where")]
    return [word for word in words if word not in STAGES]


def stage_of(rule):
    given = next((word for word in rule.arguments if word in STAGES), None)
    return given or ("after" if rule.action in AFTERWARDS else "before")


class Faults:
    """Applies rules to one connection."""

    def __init__(self, connection):
        self.connection = connection
        self.target = connection.target

    def relevant(self, rules, task=None):
        """Those whose conditions hold; of those for "any" call, the ones that mean something here."""
        return [rule for rule in rules
                if (task is not None or rule.call != "any" or rule.action in ANYWHERE)
                and self._all_hold(rule, task)]

    def _all_hold(self, rule, task):
        wanted = conditions(rule)
        nth = wanted.pop("nth", None)
        if not all(self._holds(key, value, task) for key, value in wanted.items()):
            return False
        times = self.target.times
        times[rule] = times.get(rule, 0) + 1
        return nth in (None, times[rule])

    def _holds(self, key, value, task):
        session = self.connection.session
        if key == "portal":
            return self.connection.portal.number == value
        if key == "session":
            return session is not None and session.number == value
        if key == "nexus":
            return session is not None and self.target.nexus_number(session.nexus) == value
        if key == "lun":
            return task is not None and task.lun == value
        if key == "lba":
            extent = range_of(task.cdb) if task is not None else None
            return extent is not None and extent[0] <= value < extent[0] + extent[1]
        raise ValueError(f"no such condition: {key}")

    def takes_time(self, task):
        return any(rule.action in ("delay", "until") for rule in task.rules)

    # ---- Of commands

    async def apply(self, task, stage, answer=None):
        """Applies the task's rules of this stage. Returns whether the task has been dealt with."""
        changed, hold, patience = False, 0, 50
        for rule in task.rules:
            if stage_of(rule) != stage:
                continue
            words = arguments(rule)
            if rule.action == "hold":
                # An answer that changes how others are to be understood is not held.
                changed, hold = True, 0 if answer.sense is not None else int(words[0])
                patience = int(words[1]) if len(words) > 1 else patience
            elif rule.action == "short":
                changed, answer = True, shortened(answer, int(words[0]))
            elif rule.action in STATE:
                self.target.act(rule.action, words, task.lun, self.connection, task)
            elif rule.action == "delay":
                await asyncio.sleep(int(words[0]) / 1000)
            elif rule.action == "until":
                await self.target.log.until(words[0], int(words[1]))
            elif await self._end(task, rule.action, words, answer):
                return True
        if changed:
            self.connection.answer(task, answer, hold, patience / 1000)
        return changed

    async def _end(self, task, action, words, answer):
        """Ends the task in this way. Returns whether it did."""
        connection = self.connection
        if action == "status":
            connection.answer(task, Answer(status=status_number(words[0])))
        elif action == "sense":
            # After the execution: the data has been moved (RECOVERED ERROR).
            done = answer or Answer()
            connection.answer(task, Answer(STATUSES["CHECK_CONDITION"], Sense.parse(words),
                                           done.data, done.needed))
        elif action == "ignore":
            self.target.end_task(task, "ignored")
        elif action == "reject":
            header = b"\x01" + bytes(15) + task.tag.to_bytes(4, "big") + bytes(28)
            connection.reject(header, int(words[0]) if words else 9)
            self.target.end_task(task, "rejected")
        elif action == "half":
            reply = connection.encode(task, answer)
            self.target.end_task(task, "half")
            connection.send(reply[:len(reply) // 2])
            await connection.writer.drain()
            raise Gone
        else:
            self.target.end_task(task, action)
            await self.disturb(action)
        return True

    async def disturb(self, action):
        """What does not depend on a command."""
        connection = self.connection
        if action == "cut":
            connection.reset()
            raise Gone
        if action == "close":
            raise Gone
        if action == "silence":
            connection.silent = True
        elif action == "mute":
            self.target.mute = True
        elif action == "garbage":
            connection.send(b"HTTP/1.1 400 Bad Request\r\nServer: nothing in particular\r\n\r\n")
        else:
            raise ValueError(f"{action} has no meaning here")

    # ---- Of logins and task management

    async def login(self, rules):
        for rule in rules:
            words = arguments(rule)
            if rule.action == "refuse":
                status_class, _, detail = words[0].partition("/")
                raise Refused(int(status_class), int(detail))
            if rule.action == "move":
                raise Moved(words[0])
            if rule.action == "delay":
                await asyncio.sleep(int(words[0]) / 1000)
            elif rule.action in STATE:
                self.target.act(rule.action, words, None, self.connection)
            else:
                await self.disturb(rule.action)

    async def task_management(self, rules):
        """Returns the response to give in place of the true one, or None."""
        response = None
        for rule in rules:
            words = arguments(rule)
            if rule.action == "response":
                response = int(words[0])
            elif rule.action == "delay":
                await asyncio.sleep(int(words[0]) / 1000)
            elif rule.action in STATE:
                self.target.act(rule.action, words, None, self.connection)
            else:
                await self.disturb(rule.action)
        return response


class Moved(Refused):
    """Temporarily moved, RFC 7143 11.13.5."""

    def __init__(self, address):
        super().__init__(1, 1)
        self.args = (("TargetAddress", address),)


def shortened(answer, size):
    data = answer.data[:max(len(answer.data) - size, 0)]
    return Answer(answer.status, answer.sense, data, len(data))


def status_number(word):
    return STATUSES[word] if word in STATUSES else int(word, 16)

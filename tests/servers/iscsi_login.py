# SPDX-License-Identifier: LGPL-2.1-or-later
"""The login phase of the scripted iSCSI target: text negotiation (RFC 7143 6 and 13), CHAP (12.1.3)."""

import hashlib
import secrets

SECURITY, OPERATIONAL, FULL_FEATURE = 0, 1, 3

# What the target offers; the command line may say otherwise.
PARAMETERS = {
    "MaxRecvDataSegmentLength": 65536, "MaxBurstLength": 262144, "FirstBurstLength": 65536,
    "InitialR2T": "Yes", "ImmediateData": "Yes", "MaxOutstandingR2T": 1, "MaxConnections": 1,
    "DefaultTime2Wait": 0, "DefaultTime2Retain": 0, "ErrorRecoveryLevel": 0,
}

SMALLER = {"MaxBurstLength", "FirstBurstLength", "MaxOutstandingR2T", "MaxConnections",
           "DefaultTime2Retain", "ErrorRecoveryLevel"}
DECLARED = {"InitiatorName", "InitiatorAlias", "TargetName", "SessionType", "TargetAlias"}


class Refused(Exception):
    """Ends the login with this status (RFC 7143 11.13.5)."""

    def __init__(self, status_class, detail):
        super().__init__()
        self.status = (status_class, detail)


def parse_text(data):
    """A list of (key, value)."""
    pairs = []
    for item in data.split(b"\0"):
        if item:
            key, _, value = item.partition(b"=")
            pairs.append((key.decode("utf-8", "replace"), value.decode("utf-8", "replace")))
    return pairs


def make_text(pairs):
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in pairs)


class Login:
    """One login. After each request, `answer` are the pairs to send."""

    def __init__(self, offers, chap, mutual, group):
        """chap, mutual: (user, password) or None."""
        self.offers = {**PARAMETERS, **offers}
        self.chap, self.mutual, self.group = chap, mutual, group
        self.declared = {}
        self.agreed = {"HeaderDigest": "None"}
        self.segment_out = 8192  # the initiator's MaxRecvDataSegmentLength
        self._told = self._admitted = False
        self._challenge = None

    def answer(self, pairs, stage):
        """The pairs that answer these, in this stage. Raises Refused."""
        given = dict(pairs)
        self.declared.update({k: v for k, v in pairs if k in DECLARED})
        replies = []
        if stage == SECURITY:
            replies += self._authenticate(given)
        elif self.chap is not None and not self._admitted:
            raise Refused(2, 1)  # authentication failure: it went past the security stage
        for key, value in pairs:
            if key in DECLARED or key == "AuthMethod" or key.startswith("CHAP_"):
                continue
            reply = self._negotiate(key, value)
            if reply is not None:
                replies.append((key, reply))
        if not self._told:
            self._told = True
            replies.append(("TargetPortalGroupTag", self.group))
        if stage == OPERATIONAL and "MaxRecvDataSegmentLength" in given:
            replies.append(("MaxRecvDataSegmentLength",
                            self.offers["MaxRecvDataSegmentLength"]))
        return replies

    def may_leave(self, stage):
        return stage != SECURITY or self.chap is None or self._admitted

    def _negotiate(self, key, value):
        if key == "MaxRecvDataSegmentLength":
            self.segment_out = int(value)
            return None
        if key in ("HeaderDigest", "DataDigest"):
            known = ("None", "CRC32C") if key == "HeaderDigest" else ("None",)
            reply = next((v for v in value.split(",") if v in known), "Reject")
        elif key in SMALLER:
            reply = min(int(value), int(self.offers[key]))
        elif key == "DefaultTime2Wait":
            reply = max(int(value), int(self.offers[key]))
        elif key == "InitialR2T":
            reply = "Yes" if "Yes" in (value, self.offers[key]) else "No"
        elif key == "ImmediateData":
            reply = "No" if "No" in (value, self.offers[key]) else "Yes"
        elif key in ("DataPDUInOrder", "DataSequenceInOrder"):
            reply = "Yes"
        elif key in ("IFMarker", "OFMarker"):
            reply = "No"
        else:
            return "NotUnderstood"
        self.agreed[key] = reply
        return reply

    # ---- CHAP

    def _authenticate(self, given):
        if "AuthMethod" in given:
            methods = given["AuthMethod"].split(",")
            wanted = "None" if self.chap is None else "CHAP"
            if wanted not in methods:
                raise Refused(2, 1)
            return [("AuthMethod", wanted)]
        if "CHAP_A" in given:
            if "5" not in given["CHAP_A"].split(","):
                raise Refused(2, 1)
            self._challenge = secrets.token_bytes(16)
            return [("CHAP_A", 5), ("CHAP_I", 7), ("CHAP_C", "0x" + self._challenge.hex())]
        if "CHAP_R" in given and self._challenge is not None:
            return self._check(given)
        return []

    def _check(self, given):
        user, password = self.chap
        right = chap_response(7, password, self._challenge)
        if given.get("CHAP_N") != user or binary(given["CHAP_R"]) != right:
            raise Refused(2, 1)
        self._admitted = True
        if "CHAP_I" not in given:
            return []
        if self.mutual is None:
            raise Refused(2, 1)
        user, password = self.mutual
        mine = chap_response(int(given["CHAP_I"]), password, binary(given["CHAP_C"]))
        return [("CHAP_N", user), ("CHAP_R", "0x" + mine.hex())]


def chap_response(identifier, password, challenge):
    return hashlib.md5(bytes([identifier]) + password.encode() + challenge).digest()


def binary(value):
    """A binary value in hexadecimal, RFC 7143 6.1."""
    return bytes.fromhex(value[2:]) if value[:2].lower() == "0x" else b""

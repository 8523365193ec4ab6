# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the procedures of NFSv3 and MOUNT do (RFC 1813 3.3 and 5.2), for nfs3.py."""

import os

from tree import Tree
from xdr import Packer

NFS, MOUNT = 100003, 100005
PROCEDURES = {
    (NFS, 0): "NULL", (NFS, 1): "GETATTR", (NFS, 2): "SETATTR", (NFS, 3): "LOOKUP",
    (NFS, 4): "ACCESS", (NFS, 6): "READ", (NFS, 7): "WRITE", (NFS, 8): "CREATE",
    (NFS, 12): "REMOVE", (NFS, 14): "RENAME", (NFS, 15): "LINK", (NFS, 16): "READDIR",
    (NFS, 18): "FSSTAT", (NFS, 19): "FSINFO", (NFS, 21): "COMMIT",
    (MOUNT, 0): "NULL", (MOUNT, 1): "MNT", (MOUNT, 3): "UMNT", (MOUNT, 5): "EXPORT",
}
# Words of a failure's answer behind its status: optional attributes, none of which follow.
FAILURE_WORDS = {"SETATTR": 2, "LOOKUP": 1, "ACCESS": 1, "READ": 1, "WRITE": 2, "CREATE": 2,
                 "REMOVE": 2, "RENAME": 4, "LINK": 3, "READDIR": 1, "FSSTAT": 1, "FSINFO": 1,
                 "COMMIT": 2}
NO_STATUS = ("NULL", "UMNT", "EXPORT")

OK = 0
STATUS = {"OK": 0, "PERM": 1, "NOENT": 2, "IO": 5, "ACCES": 13, "EXIST": 17, "XDEV": 18,
          "NOTDIR": 20, "ISDIR": 21, "INVAL": 22, "FBIG": 27, "NOSPC": 28, "ROFS": 30,
          "NAMETOOLONG": 63, "NOTEMPTY": 66, "DQUOT": 69, "STALE": 70, "BADHANDLE": 10001,
          "NOT_SYNC": 10002, "NOTSUPP": 10004, "TOOSMALL": 10005, "SERVERFAULT": 10006,
          "BADTYPE": 10007, "JUKEBOX": 10008}
WORDS = {number: word for word, number in STATUS.items()}

UNSTABLE, FILE_SYNC = 0, 2
STABLE = {0: "UNSTABLE", 1: "DATA_SYNC", 2: "FILE_SYNC"}
CREATE_MODE = {0: "UNCHECKED", 1: "GUARDED", 2: "EXCLUSIVE"}


class Failure(Exception):
    """An nfsstat3 that is not OK."""

    def __init__(self, word):
        super().__init__(word)
        self.status = STATUS[word]


# ---- What structures look like -------------------------------------------------------------------


def pack_time(packer, ns):
    packer.u32(ns // 10**9, ns % 10**9)


def pack_attributes(packer, node):
    """fattr3"""
    packer.u32(2 if node.is_directory else 1, node.mode, node.links, node.uid, node.gid)
    packer.u64(node.size, node.used).u32(0, 0).u64(1, node.number)
    for ns in (node.mtime, node.mtime, node.ctime):
        pack_time(packer, ns)
    return packer


def pack_post(packer, node):
    """post_op_attr"""
    return pack_attributes(packer.u32(1), node)


def pack_wcc(packer, node):
    """wcc_data, without the attributes before"""
    return pack_post(packer.u32(0), node)


def take_set_attributes(args):
    """sattr3: what is to be set. Times are True, whichever they are to be."""
    wanted = {}
    for name, take in (("mode", args.u32), ("uid", args.u32), ("gid", args.u32), ("size", args.u64)):
        if args.u32():
            wanted[name] = take()
    for name in ("atime", "mtime"):
        how = args.u32()
        if how == 2:
            args.u64()
        if how:
            wanted[name] = True
    return wanted


# ---- What the procedures do ----------------------------------------------------------------------


class Procedures:
    """Each procedure takes its arguments, notes them in `entry`, and returns what follows NFS3_OK."""

    def __init__(self, max_read, max_write):
        self.tree = Tree()
        self.max_read, self.max_write = max_read, max_write
        self.verifier = None
        self.new_verifier()

    def new_verifier(self):
        self.verifier = os.urandom(8)

    def forget(self):
        self.tree.forget()
        self.new_verifier()

    def take_node(self, args, entry, key="file"):
        handle = args.opaque()
        node = self.tree.by_handle(handle)
        if node is None:
            raise Failure("STALE")
        if key:
            entry[key] = self.tree.name_of(node)
        return node

    def take_file(self, args, entry):
        node = self.take_node(args, entry)
        if node.is_directory:
            raise Failure("ISDIR")
        return node

    def take_place(self, args, entry, key="name"):
        """diropargs3"""
        directory = self.take_node(args, entry, None)
        name = args.string()
        if not directory.is_directory:
            raise Failure("NOTDIR")
        entry[key] = f"{self.tree.name_of(directory)}/{name}"
        return directory, name

    def set_attributes(self, node, wanted):
        if "size" in wanted:
            node.resize(wanted["size"])
        if "mtime" in wanted or "atime" in wanted:
            node.verifier = None  # which servers keep in the times
        for name in wanted.keys() & {"mode", "uid", "gid"}:
            setattr(node, name, wanted[name])
        node.touch()

    def NULL(self, args, entry, fate):
        return b""

    UMNT = NULL

    def GETATTR(self, args, entry, fate):
        return pack_attributes(Packer(), self.take_node(args, entry)).bytes()

    def SETATTR(self, args, entry, fate):
        node = self.take_node(args, entry)
        entry["set"] = take_set_attributes(args)
        self.set_attributes(node, entry["set"])
        return pack_wcc(Packer(), node).bytes()

    def LOOKUP(self, args, entry, fate):
        directory, name = self.take_place(args, entry)
        node = directory if name == "." else directory.names.get(name)
        if node is None:
            raise Failure("NOENT")
        return pack_post(pack_post(Packer().opaque(node.handle), node), directory).bytes()

    def ACCESS(self, args, entry, fate):
        node = self.take_node(args, entry)
        return pack_post(Packer(), node).u32(args.u32()).bytes()

    def READ(self, args, entry, fate):
        node = self.take_file(args, entry)
        entry["offset"], entry["count"] = offset, count = args.u64(), args.u32()
        data = node.read(offset, min(count, self.max_read, fate.short or count))
        eof = offset + len(data) >= node.size
        if fate.eof:
            data, eof = data[:len(data) // 2], True
        entry["done"] = len(data)
        return pack_post(Packer(), node).u32(len(data), int(eof)).opaque(data).bytes()

    def WRITE(self, args, entry, fate):
        node = self.take_file(args, entry)
        entry["offset"], entry["count"], stable = args.u64(), args.u32(), args.u32()
        entry["stable"] = STABLE[stable]
        data = args.opaque()[:min(entry["count"], self.max_write, fate.short or entry["count"])]
        if fate.sync:
            stable = FILE_SYNC
        entry["committed"] = STABLE[stable]
        node.write(entry["offset"], data, stable != UNSTABLE)
        entry["done"] = len(data)
        packer = pack_wcc(Packer(), node).u32(len(data), stable)
        return packer.fixed(self.verifier_for(fate, entry)).bytes()

    def COMMIT(self, args, entry, fate):
        node = self.take_file(args, entry)
        entry["offset"], entry["count"] = args.u64(), args.u32()
        node.commit(entry["offset"], entry["count"])
        return pack_wcc(Packer(), node).fixed(self.verifier_for(fate, entry)).bytes()

    def verifier_for(self, fate, entry):
        verifier = os.urandom(8) if fate.verifier else self.verifier
        entry["verifier"] = verifier.hex()
        return verifier

    def CREATE(self, args, entry, fate):
        directory, name = self.take_place(args, entry)
        mode = args.u32()
        entry["mode"] = CREATE_MODE[mode]
        verifier = args.fixed(8) if mode == 2 else None
        wanted = {} if mode == 2 else take_set_attributes(args)
        node = directory.names.get(name)
        if node is None:
            # RFC 1813 3.3.8: the attributes of an EXCLUSIVE create are undefined.
            node = directory.names[name] = self.tree.new(mode=0 if mode == 2 else 0o644)
            directory.touch()
            self.set_attributes(node, wanted)
            node.verifier = verifier
        elif node.is_directory or mode == 1 or mode == 2 and node.verifier != verifier:
            raise Failure("EXIST")
        elif mode == 0:
            self.set_attributes(node, wanted)
        packer = Packer().u32(1).opaque(node.handle)
        return pack_wcc(pack_post(packer, node), directory).bytes()

    def REMOVE(self, args, entry, fate):
        directory, name = self.take_place(args, entry)
        if name not in directory.names:
            raise Failure("NOENT")
        if directory.names[name].is_directory:
            raise Failure("ISDIR")
        self.tree.unlink(directory, name)
        return pack_wcc(Packer(), directory).bytes()

    def RENAME(self, args, entry, fate):
        directory, name = self.take_place(args, entry)
        new_directory, new_name = self.take_place(args, entry, "new")
        node, old = directory.names.get(name), new_directory.names.get(new_name)
        if node is None:
            raise Failure("NOENT")
        if old is not None and old.is_directory:
            raise Failure("EXIST")
        if old is not node:
            if old is not None:
                self.tree.unlink(new_directory, new_name)
            new_directory.names[new_name] = directory.names.pop(name)
            directory.touch()
            new_directory.touch()
        return pack_wcc(pack_wcc(Packer(), directory), new_directory).bytes()

    def LINK(self, args, entry, fate):
        node = self.take_file(args, entry)
        directory, name = self.take_place(args, entry, "new")
        if name in directory.names:
            raise Failure("EXIST")
        directory.names[name] = node
        node.links += 1
        node.touch()
        directory.touch()
        return pack_wcc(pack_post(Packer(), node), directory).bytes()

    def READDIR(self, args, entry, fate):
        directory = self.take_node(args, entry)
        if not directory.is_directory:
            raise Failure("NOTDIR")
        cookie, _, room = args.u64(), args.fixed(8), args.u32()
        packer = pack_post(Packer(), directory).fixed(bytes(8))
        names = sorted(directory.names.items())
        for at, (name, node) in list(enumerate(names, 1))[cookie:]:
            room -= 24 + len(name.encode()) + 3
            if room < 128:
                return packer.u32(0, 0).bytes()
            packer.u32(1).u64(node.number).string(name).u64(at)
        return packer.u32(0, 1).bytes()

    def FSSTAT(self, args, entry, fate):
        node = self.take_node(args, entry)
        return pack_post(Packer(), node).u64(*[1 << 50] * 3, *[1 << 30] * 3).u32(0).bytes()

    def FSINFO(self, args, entry, fate):
        node = self.take_node(args, entry)
        packer = pack_post(Packer(), node).u32(self.max_read, self.max_read, 1)
        packer.u32(self.max_write, self.max_write, 1, 8192).u64((1 << 63) - 1)
        return packer.u32(0, 1, 0x1B).bytes()

    def MNT(self, args, entry, fate):
        entry["name"] = path = args.string()
        node = self.tree.find(path)
        if node is None:
            raise Failure("NOENT")
        if not node.is_directory:
            raise Failure("NOTDIR")
        return Packer().opaque(node.handle).u32(1, 1).bytes()  # AUTH_SYS

    def EXPORT(self, args, entry, fate):
        packer = Packer()
        for name, node in self.tree.root.names.items():
            if node.is_directory:
                packer.u32(1).string("/" + name).u32(0)
        return packer.u32(0).bytes()

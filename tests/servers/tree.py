# SPDX-License-Identifier: LGPL-2.1-or-later
"""A directory tree in memory, whose files have a stable and a volatile layer.

What is written UNSTABLE lands in the volatile layer, which lies above the stable one and is gone after
Tree.forget(), unless it was committed before. Files are sparse: a page that was never written takes no
memory.
"""

import itertools
import struct
import time

PAGE = 64 << 10


class Layer(dict):
    """Pages by number; each is a bytearray of PAGE bytes."""

    def write(self, offset, data, below=None):
        """below: what a page holds at first, where it is new here; None: zeros."""
        data = memoryview(data)
        while data:
            number, start = divmod(offset, PAGE)
            count = min(PAGE - start, len(data))
            if number not in self:
                self[number] = bytearray(below.get(number, bytes(PAGE)) if below else bytes(PAGE))
            self[number][start:start + count] = data[:count]
            offset, data = offset + count, data[count:]

    def cut(self, size):
        """Nothing is left from `size` on."""
        last, start = divmod(size, PAGE)
        for number in [number for number in self if number > last]:
            del self[number]
        if last in self:
            self[last][start:] = bytes(PAGE - start)


class Node:
    """A file or a directory."""

    numbers = itertools.count(2)

    def __init__(self, directory=False, mode=0o644):
        self.number = next(Node.numbers)
        self.generation = 1  # of its handle
        self.mode, self.links, self.uid, self.gid = mode, 1, 0, 0
        self.mtime = self.ctime = time.time_ns()
        self.names = {} if directory else None
        self.verifier = None  # of the EXCLUSIVE create that made it, while that can be recognised
        self.stable, self.volatile = Layer(), Layer()
        self.stable_size = self.size = 0

    @property
    def is_directory(self):
        return self.names is not None

    @property
    def handle(self):
        return struct.pack(">8sQQ", b"scripted", self.number, self.generation)

    @property
    def used(self):
        return PAGE * len(self.stable.keys() | self.volatile.keys())

    def touch(self):
        # Two changes never have one time.
        self.mtime = self.ctime = max(time.time_ns(), self.ctime + 1)

    def read(self, offset, count):
        count = max(0, min(count, self.size - offset))
        pieces = []
        while count:
            number, start = divmod(offset, PAGE)
            length = min(PAGE - start, count)
            page = self.volatile.get(number) or self.stable.get(number)
            pieces.append(page[start:start + length] if page else bytes(length))
            offset, count = offset + length, count - length
        return b"".join(pieces)

    def write(self, offset, data, stable):
        if stable:
            self.stable.write(offset, data)
            self.stable_size = max(self.stable_size, offset + len(data))
        # A page that is dirty keeps what is not yet committed in it.
        if not stable or any(number in self.volatile for number in
                             range(offset // PAGE, (offset + len(data)) // PAGE + 1)):
            self.volatile.write(offset, data, self.stable)
        self.size = max(self.size, offset + len(data))
        self.verifier = None  # which servers keep in the times
        self.touch()

    def commit(self, offset, count):
        """count 0: to the end. The pages at the ends of the range are committed whole."""
        end = offset + count if count else max(self.size, offset + 1)
        for number in sorted(self.volatile):
            if offset // PAGE <= number <= (end - 1) // PAGE:
                self.stable[number] = self.volatile.pop(number)
        self.stable_size = max(self.stable_size, min(end, self.size))

    def resize(self, size):
        for layer in (self.stable, self.volatile):
            layer.cut(size)
        self.size = self.stable_size = size
        self.touch()

    def load(self, data):
        self.write(0, data, True)

    def save(self, file):
        """Writes the stable layer to an empty file."""
        file.truncate(self.stable_size)
        for number, page in self.stable.items():
            file.seek(number * PAGE)
            file.write(page[:max(0, self.stable_size - number * PAGE)])

    def forget(self):
        self.volatile.clear()
        if not self.is_directory:
            self.size = self.stable_size


class Tree:
    """Nodes by number, and the root."""

    def __init__(self):
        self.root = Node(directory=True, mode=0o755)
        self.nodes = {self.root.number: self.root}

    def new(self, **arguments):
        node = Node(**arguments)
        self.nodes[node.number] = node
        return node

    def find(self, path):
        """The node at an absolute path, or None."""
        node = self.root
        for name in filter(None, path.split("/")):
            node = node.names.get(name) if node.is_directory else None
            if node is None:
                return None
        return node

    def by_handle(self, handle):
        """The node, or None where the handle is stale."""
        if len(handle) != 24:
            return None
        magic, number, generation = struct.unpack(">8sQQ", handle)
        node = self.nodes.get(number)
        return node if magic == b"scripted" and node and node.generation == generation else None

    def make_directory(self, path):
        """The directory of this path, made where it is missing, like those above it."""
        node = self.root
        for name in filter(None, path.split("/")):
            if name not in node.names:
                node.names[name] = self.new(directory=True, mode=0o755)
            node = node.names[name]
        return node

    def make_file(self, path):
        """A new file; the directories above it are made."""
        directory, _, name = path.rpartition("/")
        node = self.make_directory(directory).names[name] = self.new()
        return node

    def unlink(self, directory, name):
        node = directory.names.pop(name)
        node.links -= 1
        node.touch()
        directory.touch()
        if node.links == 0:
            del self.nodes[node.number]

    def forget(self):
        for node in self.nodes.values():
            node.forget()

    def files(self, directory=None, prefix=""):
        """All (path, node) of files."""
        for name, node in sorted((directory or self.root).names.items()):
            path = f"{prefix}/{name}"
            if node.is_directory:
                yield from self.files(node, path)
            else:
                yield path, node

    def name_of(self, node):
        """A path that leads there, for people; "" for the root, None for a file without a name."""
        def search(directory, prefix):
            for name, child in directory.names.items():
                if child is node:
                    return f"{prefix}/{name}"
                found = child.is_directory and search(child, f"{prefix}/{name}")
                if found:
                    return found
            return None
        return "" if node is self.root else search(self.root, "")

# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a scripted logical unit holds: bytes on stable storage, and a volatile write cache above them.

Both are sparse, so a unit may be as large as it likes. Losing power is real: what was only in the
cache is gone, and reads show what was there before.
"""

UNIT = 4096
BLANK = bytes(UNIT)

# In place of data: a range of zeros, and one that is not mapped any more.
ZEROS, UNMAPPED = "zeros", "unmapped"


class Stable:
    """Bytes that survive a loss of power. What was never written, or is unmapped, reads as `fill`."""

    def __init__(self):
        self.fill = 0
        self._units = {}

    def read(self, offset, length):
        parts = []
        while length > 0:
            index, at = divmod(offset, UNIT)
            size = min(UNIT - at, length)
            unit = self._units.get(index)
            parts.append(bytes([self.fill]) * size if unit is None else bytes(unit[at:at + size]))
            offset += size
            length -= size
        return b"".join(parts)

    def write(self, offset, data):
        done = 0
        while done < len(data):
            index, at = divmod(offset + done, UNIT)
            size = min(UNIT - at, len(data) - done)
            self._own(index)[at:at + size] = data[done:done + size]
            done += size

    def zero(self, offset, length):
        """What lies in whole units costs no memory of its own."""
        while length > 0:
            index, at = divmod(offset, UNIT)
            size = min(UNIT - at, length)
            if size == UNIT:
                self._units[index] = BLANK
            else:
                self._own(index)[at:at + size] = bytes(size)
            offset += size
            length -= size

    def unmap(self, offset, length):
        """Parts of a unit read as if they were, too: the rest of it may have been written since."""
        first, last = -(-offset // UNIT), (offset + length) // UNIT
        whole = range(first, last) if last - first < len(self._units) \
            else [i for i in self._units if first <= i < last]
        for index in whole:
            self._units.pop(index, None)
        for index, at, end in ((offset // UNIT, offset % UNIT, min(UNIT, offset % UNIT + length)),
                               (last, 0, (offset + length) % UNIT)):
            if not first <= index < last and at < end and index in self._units:
                self._own(index)[at:end] = bytes([self.fill]) * (end - at)

    def is_mapped(self, offset):
        return offset // UNIT in self._units

    def end(self):
        """Of the last unit that is mapped."""
        return (max(self._units, default=-1) + 1) * UNIT

    def save(self, path, size):
        """Writes the content to a file of `size` bytes, which is sparse where that is zeros."""
        with open(path, "wb") as file:
            file.truncate(size)
            for index in range(-(-size // UNIT)) if self.fill else sorted(self._units):
                if index * UNIT < size:
                    file.seek(index * UNIT)
                    file.write(self.read(index * UNIT, min(UNIT, size - index * UNIT)))

    def load(self, path):
        """Zeros are left as they are."""
        with open(path, "rb") as file:
            offset = 0
            while data := file.read(UNIT):
                if data.count(0) != len(data):
                    self.write(offset, data)
                offset += len(data)

    def _own(self, index):
        """A unit that can be changed."""
        unit = self._units.get(index)
        if not isinstance(unit, bytearray):
            unit = bytearray([self.fill]) * UNIT if unit is None else bytearray(unit)
            self._units[index] = unit
        return unit


def part(content, first, last):
    return content if isinstance(content, str) else content[first:last]


class Medium:
    """Stable storage below a cache. The cache is a list of extents (offset, length, data or ZEROS
    or UNMAPPED) that never overlap: a later write trims what lies under it, so they may be written back in
    any order."""

    def __init__(self):
        self.stable = Stable()
        self._cache = []

    def read(self, offset, length):
        data = bytearray(self.stable.read(offset, length))
        for start, size, content in self._cache:
            first, last = max(start, offset), min(start + size, offset + length)
            if first < last:
                data[first - offset:last - offset] = self._bytes(
                    part(content, first - start, last - start), last - first)
        return bytes(data)

    def write(self, offset, data, durable, length=None):
        """data: bytes, or ZEROS of this length."""
        self._put((offset, len(data) if length is None else length, data), durable)

    def unmap(self, offset, length, durable):
        self._put((offset, length, UNMAPPED), durable)

    def is_mapped(self, offset):
        for start, size, content in self._cache:
            if start <= offset < start + size:
                return content != UNMAPPED
        return self.stable.is_mapped(offset)

    def mapped_ends(self):
        """Nothing is mapped from there on."""
        return max([self.stable.end()] + [start + size for start, size, _ in self._cache])

    def _bytes(self, content, length):
        if content == ZEROS:
            return bytes(length)
        return bytes([self.stable.fill]) * length if content == UNMAPPED else content

    def flush(self, offset=0, length=None):
        """Writes back every extent that touches the range (all of it without a length)."""
        end = float("inf") if length is None else offset + length
        keep = []
        for extent in self._cache:
            if extent[0] < end and extent[0] + extent[1] > offset:
                self._write_back(extent)
            else:
                keep.append(extent)
        self._cache = keep

    def flush_half(self):
        """Writes back the older half, as a flush that is interrupted may."""
        half = (len(self._cache) + 1) // 2
        for extent in self._cache[:half]:
            self._write_back(extent)
        self._cache = self._cache[half:]

    def cached(self):
        """Bytes that only the cache has."""
        return sum(size for _, size, _ in self._cache)

    def lose_cache(self):
        self._cache = []

    def _put(self, extent, durable):
        self._trim(extent[0], extent[1])
        if durable:
            self._write_back(extent)
        else:
            self._cache.append(extent)

    def _write_back(self, extent):
        offset, length, data = extent
        if data == UNMAPPED:
            self.stable.unmap(offset, length)
        elif data == ZEROS:
            self.stable.zero(offset, length)
        else:
            self.stable.write(offset, data)

    def _trim(self, offset, length):
        end = offset + length
        kept = []
        for start, size, content in self._cache:
            if start + size <= offset or start >= end:
                kept.append((start, size, content))
                continue
            if start < offset:
                head = offset - start
                kept.append((start, head, part(content, 0, head)))
            if start + size > end:
                tail = start + size - end
                kept.append((end, tail, part(content, size - tail, size)))
        self._cache = kept

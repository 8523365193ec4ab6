# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a scripted logical unit holds: bytes on stable storage, and a volatile write cache above them.

Both are sparse, so a unit may be as large as it likes. Losing power is real: what was only in the
cache is gone, and reads show what was there before.
"""

CHUNK = 64 * 1024


class Stable:
    """Bytes that survive a loss of power. What was never written, or was discarded, reads as zeros."""

    def __init__(self):
        self._chunks = {}

    def read(self, offset, length):
        parts = []
        while length > 0:
            index, at = divmod(offset, CHUNK)
            size = min(CHUNK - at, length)
            chunk = self._chunks.get(index)
            parts.append(bytes(size) if chunk is None else bytes(chunk[at:at + size]))
            offset += size
            length -= size
        return b"".join(parts)

    def write(self, offset, data):
        done = 0
        while done < len(data):
            index, at = divmod(offset + done, CHUNK)
            size = min(CHUNK - at, len(data) - done)
            chunk = self._chunks.setdefault(index, bytearray(CHUNK))
            chunk[at:at + size] = data[done:done + size]
            done += size

    def discard(self, offset, length):
        end = offset + length
        for index in [i for i in self._chunks if i * CHUNK < end and (i + 1) * CHUNK > offset]:
            first, last = max(offset, index * CHUNK), min(end, (index + 1) * CHUNK)
            if last - first == CHUNK:
                del self._chunks[index]
            else:
                at = first - index * CHUNK
                self._chunks[index][at:at + last - first] = bytes(last - first)

    def is_mapped(self, offset):
        return offset // CHUNK in self._chunks

    def save(self, path, size):
        """Writes the content to a sparse file of `size` bytes."""
        with open(path, "wb") as file:
            file.truncate(size)
            for index in sorted(self._chunks):
                if index * CHUNK < size:
                    file.seek(index * CHUNK)
                    file.write(self._chunks[index][:size - index * CHUNK])

    def load(self, path):
        with open(path, "rb") as file:
            offset = 0
            while data := file.read(CHUNK):
                if data.count(0) != len(data):
                    self.write(offset, data)
                offset += len(data)


class Medium:
    """Stable storage below a cache. The cache is a list of extents (offset, length, data or None for
    zeros) that never overlap: a later write trims what lies under it, so they may be written back in
    any order."""

    def __init__(self):
        self.stable = Stable()
        self._cache = []

    def read(self, offset, length):
        data = bytearray(self.stable.read(offset, length))
        for start, size, content in self._cache:
            first, last = max(start, offset), min(start + size, offset + length)
            if first < last:
                piece = bytes(last - first) if content is None \
                    else content[first - start:last - start]
                data[first - offset:last - offset] = piece
        return bytes(data)

    def write(self, offset, data, durable):
        self._put((offset, len(data), bytes(data)), durable)

    def zero(self, offset, length, durable):
        if length > 0:
            self._put((offset, length, None), durable)

    def is_mapped(self, offset):
        for start, size, content in self._cache:
            if start <= offset < start + size:
                return content is not None
        return self.stable.is_mapped(offset)

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
        if data is None:
            self.stable.discard(offset, length)
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
                kept.append((start, head, None if content is None else content[:head]))
            if start + size > end:
                tail = start + size - end
                kept.append((end, tail, None if content is None else content[-tail:]))
        self._cache = kept

"""Large values as rows: compressed, told as what is new against the value they grew out of, or as the name of a file.

A value that grows belongs to a *series*: a log of bytes that is only appended to. Each version is a list of extents of
that log and a few bytes of its own, so any version is read without the others, and each byte of the log is stored once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, Final, NamedTuple

import ormsgpack

from checkpoint_plugin.codec import MalformedValue
from checkpoint_plugin.stored_bytes.compression import Compressor, check_size, decompress
from checkpoint_plugin.stored_bytes.sealing import PLAIN, Seal, payload_place, series_place
from checkpoint_plugin.stored_bytes.splice import Piece, splice

__all__ = ["CACHED", "GROWING", "LARGEST", "PIECES", "BaseCache", "PayloadReader", "PayloadRow", "PayloadWriter", "SegmentRow"]

PIECES: Final = 2
"""The encoding of a payload whose body lists extents of a series and bytes of its own."""
GROWING: Final = 2_048
"""Bytes from which on a value is compared with the one before it: less than half a page is written sooner than compared."""
LARGEST: Final = 16 << 20
"""Bytes up to which it is: the one before is kept in memory."""
OWN: Final = 64
"""Bytes from which on what is new goes to the log and not into the row itself."""
TAIL: Final = 32
"""Bytes at the end of what is new that stay out of the log: what stands there (a counter, the end of a mapping) is the next
to change, and the log would be cut into ever more extents."""
MOST_PIECES: Final = 64
"""Pieces that a value may have before it begins another series. A long one may have more, by the root of its length: it is
written again whole less often, and lists of pieces come to about as much as that."""
STRETCH: Final = 4
"""How many times its own length a value, with those that it grew out of, may put into its series; then it begins another one. Who
reads it reads all of the series, and none of that is deleted as long as the value is kept."""
PROBE: Final = 24
NEAR: Final = 4_096
CACHED: Final = 64 << 20
FEW_SERIES: Final = 4
"""So many are not looked through, whether anything is still made of them."""


class PayloadRow(NamedTuple):
    """A value as it is stored, in the order of `statements.MANY`; see `models.Payload`."""

    digest: bytes
    encoding: int
    size: int
    body: bytes
    series: int | None = None
    series_end: int | None = None
    blob: str | None = None


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """Bytes of a series as they are stored; see `models.PayloadSegment`."""

    series: int
    start: int
    size: int
    encoding: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Base:
    """A value that later ones may grow out of.

    Args:
        data: its bytes.
        pieces: what it is made of, extents of its series and bytes; `None` for a value that stands alone.
        series: its series.
        logged: bytes that it and those that it grew out of have put there.
    """

    data: bytes
    pieces: Sequence[Piece] | None = None
    series: int = 0
    logged: int = 0

    @property
    def end(self) -> int:
        """Where the last extent of its series ends; 0 without one."""
        extents = [piece for piece in self.pieces or () if not isinstance(piece, bytes)]
        return max((start + size for start, size in extents), default=0)


class BaseCache:
    """The last value of each place, as far as memory allows, and what compresses the values of the run.

    Args:
        limit: bytes of all of them.
    """

    def __init__(self, limit: int = CACHED) -> None:
        self.compressor = Compressor()
        self._limit = limit
        self._size = 0
        self._bases: OrderedDict[Hashable, Base] = OrderedDict()
        self.ends: dict[int, int] = {}
        """Where the series of these values end: of several that grew out of one, each appends behind the others."""

    def get(self, place: Hashable) -> Base | None:
        """The last value of a place."""
        return self._bases.get(place)

    def put(self, place: Hashable, base: Base) -> None:
        """Remember the last value of a place; what was not used for longest is forgotten."""
        before = self._bases.pop(place, None)
        self._size += len(base.data) - (0 if before is None else len(before.data))
        self._bases[place] = base
        while self._size > self._limit:
            _, forgotten = self._bases.popitem(last=False)
            self._size -= len(forgotten.data)

    def extend(self, ends: Mapping[int, int]) -> None:
        """Remember where series end. Those of which no value is left are forgotten now and then: a run may begin any number."""
        self.ends.update(ends)
        if len(self.ends) > 2 * len(self._bases) + FEW_SERIES:
            self.ends = {base.series: self.ends[base.series] for base in self._bases.values() if base.series in self.ends}

    def keep(self, ends: Mapping[int, int]) -> None:
        """Forget all but those that are made of stored parts of their series: one that stands alone may be stored no more.

        Those are forgotten, too, that use less than half of their series: as long as it grows, none of it is deleted.

        Args:
            ends: of each series the end of what is stored of it.
        """
        stored = ((place, base, ends.get(base.series, 0)) for place, base in self._bases.items())
        kept = {place: base for place, base, end in stored if 0 < base.end <= min(end, 2 * len(base.data))}
        self._bases = OrderedDict(kept)
        self._size = sum(len(base.data) for base in kept.values())
        self.ends = {base.series: self.ends[base.series] for base in kept.values()}


class PayloadWriter:
    """The new payloads of one save. What it learns of bases counts only once the save is durable: `note`.

    Args:
        cache: the bases of the run.
        number: of the checkpoint; the series that begin in it are numbered after it.
        related: for a place the places where the value that it grew out of may have stood.
        file: writes a value that becomes a file, of which it gets the row, and gives the row that names it.
        file_bytes: from which on a value becomes one, unless it grew out of another; `None` for none.
    """

    def __init__(
        self,
        cache: BaseCache,
        number: int,
        related: Callable[[Any], Sequence[Hashable]] = lambda place: (),
        file: Callable[[PayloadRow], PayloadRow] = lambda row: row,
        file_bytes: int | None = None,
    ) -> None:
        self._related = related
        self._file = file
        self._file_bytes = file_bytes
        self.rows: list[PayloadRow] = []
        self.segments: list[SegmentRow] = []
        self._cache = cache
        self._bases: dict[Hashable, Base] = {}
        self._ends: dict[int, int] = {}
        self._next_series = number << 20
        self.file_bytes = 0
        """Bytes of the values that became files."""

    def add(self, digest: bytes, data: bytes, place: Hashable) -> None:
        """Store a value.

        Args:
            digest: of the bytes.
            data: the bytes.
            place: where it stands.
        """
        if not GROWING <= len(data) <= LARGEST:
            self.rows.append(self._alone(digest, data))
            return
        base = self._resembling(data, (place, *self._related(place)))
        grown = None if base is None else self._grown(base, data)
        if grown is None:
            self.rows.append(self._alone(digest, data))
            grown = Base(data)
        else:
            assert grown.pieces is not None
            self.rows.append(PayloadRow(digest, PIECES, len(data), ormsgpack.packb(grown.pieces), grown.series, grown.end))
        self._bases[place] = grown

    def note(self) -> None:
        """The save is durable: later values may grow out of these."""
        for place, base in self._bases.items():
            self._cache.put(place, base)
        self._cache.extend(self._ends)

    @property
    def row_bytes(self) -> int:
        """Bytes of all rows."""
        return sum(len(row.body) for row in self.rows) + sum(len(segment.body) for segment in self.segments)

    def _alone(self, digest: bytes, data: bytes) -> PayloadRow:
        encoding, body = self._cache.compressor.compress(data)
        row = PayloadRow(digest, encoding, len(data), body)
        if self._file_bytes is None or len(data) < self._file_bytes:
            return row
        self.file_bytes += len(row.body)
        return self._file(row)

    def _resembling(self, data: bytes, places: Sequence[Hashable]) -> Base | None:
        for place in places:
            base = self._bases.get(place) or self._cache.get(place)
            if base is not None and _resembles(base.data, data):
                return base
        return None

    def _grown(self, base: Base, data: bytes) -> Base | None:
        found = splice(base.data, data)
        if 2 * sum(piece[1] for piece in found if not isinstance(piece, bytes)) < len(data):
            return None
        if base.pieces is None:
            return self._begin(data)
        # Several values may grow out of one, in this save and in others: each appends where the series ends now.
        end = first = self._ends.get(base.series) or self._cache.ends[base.series]
        pieces = _merged(_translated(found, base.pieces))
        if len(pieces) > max(MOST_PIECES, isqrt(len(data) // 4)):
            return self._begin(data)
        logged: list[bytes] = []
        told: list[Piece] = []
        for piece in pieces:
            if isinstance(piece, bytes) and len(piece) >= OWN:
                logged.append(piece[:-TAIL])
                told += [(end, len(logged[-1])), piece[-TAIL:]]
                end += len(logged[-1])
            else:
                told.append(piece)
        all_logged = base.logged + end - first
        if all_logged > STRETCH * len(data):
            return self._begin(data)
        if logged:
            self._log(base.series, first, b"".join(logged))
        return Base(data, _merged(told), base.series, all_logged)

    def _begin(self, data: bytes) -> Base:
        series, self._next_series = self._next_series, self._next_series + 1
        end = len(data) - TAIL
        self._log(series, 0, data[:end])
        return Base(data, ((0, end), data[end:]), series, end)

    def _log(self, series: int, start: int, data: bytes) -> None:
        encoding, body = self._cache.compressor.compress(data)
        self.segments.append(SegmentRow(series, start, len(data), encoding, body))
        self._ends[series] = start + len(data)


class PayloadReader:
    """The bytes of payloads.

    Args:
        payloads: rows by digest.
        segments: of their series.
        seal: opens the bodies.
        read_file: gives the bytes of a file by its name.
        ends: where each series ends, also behind these payloads; of those that are not named nothing can grow.
    """

    def __init__(
        self,
        payloads: Mapping[bytes, PayloadRow],
        segments: Iterable[SegmentRow],
        seal: Seal = PLAIN,
        read_file: Callable[[str], bytes] | None = None,
        ends: Mapping[int, int] | None = None,
    ) -> None:
        self._seal = seal
        self._read_file = read_file
        self._payloads = payloads
        self._ends = ends or {}
        self._series: dict[int, tuple[list[int], list[SegmentRow]]] = {}
        self._unpacked: dict[tuple[int, int], bytes] = {}
        for segment in sorted(segments, key=lambda row: (row.series, row.start)):
            starts, rows = self._series.setdefault(segment.series, ([], []))
            starts.append(segment.start)
            rows.append(segment)

    def data(self, digest: bytes) -> bytes | None:
        """The bytes of a payload, not yet compared with its digest; `None` when it is not there.

        Raises:
            MalformedValue: it is not what was written.
            BlobsUnusable: it is a file of a place that refuses, or is not known.
        """
        row = self._payloads.get(digest)
        if row is None:
            return None
        check_size(row.size)
        stored = row.body if row.blob is None else self._filed(row.blob)
        body = self._seal.open(stored, *payload_place(digest))
        if row.encoding != PIECES:
            return decompress(row.encoding, body, row.size)
        if row.series is None:
            raise MalformedValue("it belongs to no series")
        found = _read_pieces(body, row.size)
        pieces = [piece if isinstance(piece, bytes) else self._extent(row.series, *piece) for piece in found]
        return b"".join(pieces)

    def remember(self, cache: BaseCache, place: Hashable, digest: bytes, data: bytes) -> None:
        """Let later values grow out of a payload.

        Args:
            cache: remembers it.
            place: where the payload stands.
            digest: its own.
            data: its bytes, which were compared with the digest.
        """
        row = self._payloads[digest]
        if row.encoding != PIECES or row.series is None:
            cache.put(place, Base(data))
            return
        found = _read_pieces(self._seal.open(row.body, *payload_place(digest)), row.size)
        end = self._ends.get(row.series, 0)
        base = Base(data, tuple(piece if isinstance(piece, bytes) else (piece[0], piece[1]) for piece in found), row.series, end)
        if base.end <= end <= 2 * len(data):  # as in `BaseCache.keep`
            cache.put(place, base)
            cache.ends[row.series] = end

    def _filed(self, name: str) -> bytes:
        if self._read_file is None:
            raise MalformedValue(f"its file {name!r} cannot be read here")
        return self._read_file(name)

    def _extent(self, series: int, start: int, size: int) -> bytes:
        starts, rows = self._series.get(series, ([], []))
        end, found = start + size, []
        place = bisect_right(starts, start) - 1
        while start < end:
            if not 0 <= place < len(rows) or not rows[place].start <= start < rows[place].start + rows[place].size:
                raise MalformedValue("a part of what it grew out of is missing")
            segment = rows[place]
            data = self._segment(segment)
            part = data[start - segment.start : end - segment.start]
            found.append(part)
            start += len(part)
            place += 1
        return b"".join(found)

    def _segment(self, segment: SegmentRow) -> bytes:
        key = segment.series, segment.start
        data = self._unpacked.get(key)
        if data is None:
            body = self._seal.open(segment.body, *series_place(*key))
            data = self._unpacked[key] = decompress(segment.encoding, body, segment.size)
            if len(data) != segment.size:
                raise MalformedValue("a part of what it grew out of was changed")
        return data


def _resembles(base: bytes, data: bytes) -> bool:
    """Whether a look at three places finds them alike: comparing all of what is unlike would cost more than it saves."""
    shorter = min(len(base), len(data))
    for part in (1, 2, 3):
        at = shorter * part // 4
        anchor = base[at : at + PROBE]
        if len(anchor) == PROBE and data.find(anchor, max(0, at - NEAR), at + NEAR) >= 0:
            return True
    return False


def _translated(found: Iterable[Piece], base: Sequence[Piece]) -> Iterable[Piece]:
    """Pieces of a base as pieces of what the base is made of."""
    for piece in found:
        if isinstance(piece, bytes):
            yield piece
            continue
        start, size = piece
        at = 0
        for part in base:
            length = len(part) if isinstance(part, bytes) else part[1]
            low, high = max(start, at), min(start + size, at + length)
            if low < high:
                yield part[low - at : high - at] if isinstance(part, bytes) else (part[0] + low - at, high - low)
            at += length
            if at >= start + size:
                break


def _merged(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """Pieces that follow one another as one."""
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if isinstance(piece, bytes) and isinstance(last, bytes):
            merged[-1] = last + piece
        elif isinstance(piece, tuple) and isinstance(last, tuple) and last[0] + last[1] == piece[0]:
            merged[-1] = (last[0], last[1] + piece[1])
        else:
            merged.append(piece)
    return tuple(merged)


def _read_pieces(body: bytes, size: int) -> list[Any]:
    try:
        pieces = ormsgpack.unpackb(body)
    except ValueError as error:
        raise MalformedValue(f"its parts cannot be read ({error})") from error
    left = size
    for piece in pieces if isinstance(pieces, list) else (None,):
        if isinstance(piece, bytes):
            left -= len(piece)
        elif isinstance(piece, list) and len(piece) == 2 and all(type(n) is int and n >= 0 for n in piece):
            left -= piece[1]
        else:
            left = -1
        if left < 0:  # told before anything is put together: a few bytes must not become gigabytes
            break
    if left:
        raise MalformedValue("its parts do not have its size")
    return list(pieces)

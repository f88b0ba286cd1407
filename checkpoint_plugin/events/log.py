"""The event log of a run: numbered without gaps, however many processes write it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.unbroken import finish
from checkpoint_plugin.errors import KeyMissing, StoreDamaged, ValueNotStorable, WriterStopped
from checkpoint_plugin.events.rows import TEXTS, append_events, are_stored, fetch_events
from checkpoint_plugin.runs.access import StoreAccess
from checkpoint_plugin.runs.batching import BatchWriter
from checkpoint_plugin.store import Store
from checkpoint_plugin.stored_bytes.sealing import PLAIN
from checkpoint_plugin.tables.definition import is_storable_text
from checkpoint_plugin.tables.sealed_columns import opened_row, seal_texts
from hookspecs import TaggedValueError, dumps_tagged, loads_tagged

__all__ = ["BLOCKING", "EventLogger", "EventRecord"]

BLOCKING: Final = frozenset({"created", "resumed", "suspended", "completed", "failed", "cancelled"})
"""Kinds after which a reader draws conclusions: of the run itself, and a node's failure and suspension."""
OF_NODES: Final = frozenset({"failed", "suspended"})
BATCH_SIZE: Final = 200
BATCH_INTERVAL: Final = 0.1
STOP_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that happened.

    Args:
        seq: its number in the log of the run, from 0, without gaps.
        kind: what it is.
        node_id: the node that it happened to; `None` for the run.
        time: when it was logged, aware UTC.
        payload: what else is known.
        run_id: the run.
    """

    seq: int
    kind: str
    node_id: str | None
    time: datetime
    payload: Mapping[str, Any]
    run_id: str


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: str
    node_id: str | None
    time: datetime
    payload_json: str | None


@dataclass(slots=True)
class _Sent:
    """The batch that may have been committed although nobody heard of it."""

    entries: Sequence[_Entry] = ()
    first: int = field(default=-1)


class EventLogger:
    """Writes and reads the event log of one run; the run needs no row, unless there is a master key.

    Args:
        run_id: the run.
        url: of the store; `None` for the default.
        store: an open one instead; its owner closes it.
        blocking: kinds that `log` waits for until they are durable. By default those of the run itself, and failures
            and suspensions of nodes; the others are written by batches.

    Raises:
        TypeError: `blocking` is one text.
        ValueNotStorable: the run id is no text that databases keep.
    """

    def __init__(
        self,
        run_id: str,
        url: str | None = None,
        *,
        store: Store | None = None,
        blocking: Collection[str] | None = None,
    ) -> None:
        _check_text("run id", run_id)
        if isinstance(blocking, str):
            raise TypeError(f"blocking is a list of kinds, not the text {blocking!r}. Give blocking=[{blocking!r}].")
        self.run_id = run_id
        self._access = StoreAccess(url, store)
        self._blocking = None if blocking is None else frozenset(blocking)
        self._sent = _Sent()
        self._writer = self._make_writer()

    async def start(self) -> None:
        """Begin to log; harmless when it has begun. The store is made where there is none."""
        if not self._writer.running:
            self._writer = self._make_writer()
            self._access.hold(create=True)
            self._writer.start()

    async def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Make every event durable, and end; harmless when it has ended.

        Args:
            timeout: seconds after which it gives up; a file of SQLite that another program holds keeps it `busy_seconds` longer.

        Raises:
            WriterStopped: some events are not durable.
                What was on its way may still be written.
            asyncio.CancelledError: the caller was cancelled; raised when it has ended.
        """
        await finish(self._stop(timeout))  # torn apart, the writer would go on, and open the store again

    async def _stop(self, timeout: float) -> None:
        try:
            await self._writer.stop(timeout)
        finally:
            await self._access.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def log(self, kind: str, node_id: str | None = None, payload: Mapping[str, Any] | None = None) -> None:
        """Log that something happened, now.

        Args:
            kind: what.
            node_id: to which node; `None` for the run.
            payload: what else is known; values with a JSON form.

        Raises:
            WriterStopped: the logger is not started, or waits too long for its store.
            StoreError: what was logged before, or an event that is waited for, could not be written.
            TaggedValueError: the payload has no JSON form.
            ValueNotStorable: the kind or the node's id is no text that databases keep.
            KeyMissing: with a master key, there is a payload and the run has no row.
        """
        if not self._writer.running:
            raise WriterStopped(f"event log of run {self.run_id!r}", ())
        _check_text("kind", kind)
        if node_id is not None:
            _check_text("node id", node_id)
        entry = _Entry(kind, node_id, datetime.now(UTC), dumps_tagged(dict(payload)) if payload else None)
        await self._writer.put(entry, durable=self._is_blocking(kind, node_id))

    async def flush(self) -> None:
        """Return when every event logged so far is durable.

        Raises:
            StoreError: one could not be written.
        """
        await self._writer.flush()

    async def events(
        self,
        kind: str | Collection[str] | None = None,
        node_id: str | None = None,
        after: int | None = None,
        *,
        limit: int | None = None,
    ) -> list[EventRecord]:
        """The events of the run, oldest first, with all that this logger has logged.

        Args:
            kind: only of this kind, or of one of these.
            node_id: only of this node.
            after: only with a higher number.
            limit: at most so many.

        Raises:
            TypeError: a kind or the node's id is no text.
            StoreDamaged: a payload is not what was written.
            StoreError: the store is missing or cannot be read.
        """
        kinds = [] if kind is None else [kind] if isinstance(kind, str) else list(kind)
        for asked in kinds if node_id is None else [*kinds, node_id]:
            if not isinstance(asked, str):
                raise TypeError(f"events are asked for by texts, and {asked!r} is none. Give kinds and a node's id as texts.")
        await self._writer.flush()
        async with self._access.open(create=False) as store:

            def read(connection: Connection) -> list[Any]:
                seal = store.keys.find(connection, self.run_id)
                rows = fetch_events(connection, self.run_id, None if kind is None else kinds, node_id, after, limit)
                return [opened_row(self.run_id, row, TEXTS, seal) for row in rows]

            rows = await store.transact(read, write=False)
        return [EventRecord(row.seq, row.kind, row.node_id, row.time, self._payload(row), row.run_id) for row in rows]

    def _payload(self, row: Any) -> dict[str, Any]:
        try:
            payload = loads_tagged(row.payload_json or "{}")
        except (TaggedValueError, TypeError) as error:
            raise StoreDamaged(self.run_id, f"the payload of event {row.seq}: {error}") from error
        if type(payload) is not dict:
            raise StoreDamaged(self.run_id, f"the payload of event {row.seq} is none")
        return payload

    def _is_blocking(self, kind: str, node_id: str | None) -> bool:
        if self._blocking is not None:
            return kind in self._blocking
        return kind in (BLOCKING if node_id is None else OF_NODES)

    def _make_writer(self) -> BatchWriter[_Entry]:
        return BatchWriter(self._write, name=f"event log of run {self.run_id!r}", size=BATCH_SIZE, interval=BATCH_INTERVAL)

    async def _write(self, entries: Sequence[_Entry]) -> None:
        rows = [{"kind": e.kind, "node_id": e.node_id, "time": e.time, "payload_json": e.payload_json} for e in entries]

        def work(connection: Connection) -> None:
            seal = store.keys.find(connection, self.run_id)
            if seal is PLAIN and store.keys.ring is not None and any(entry.payload_json for entry in entries):
                raise KeyMissing(
                    f"run {self.run_id!r} has no row yet, and so no key that payloads of its events could be encrypted with; "
                    "they were not written. Save the run first, or add its row with JobRepository."
                )
            # A commit whose answer was lost: to write the batch again would log its events twice.
            if self._sent.entries is entries and are_stored(connection, self.run_id, self._sent.first, rows, seal):
                return
            self._sent = _Sent(entries, append_events(connection, self.run_id, [seal_texts(row, TEXTS, seal) for row in rows]))

        async with self._access.open(create=True) as store:
            await store.transact(work)


def _check_text(what: str, text: str) -> None:
    if not isinstance(text, str) or not text or not is_storable_text(text):
        raise ValueNotStorable(f"{what} {text!r}", "it is empty, or holds NUL or a lone surrogate. Give it another.")

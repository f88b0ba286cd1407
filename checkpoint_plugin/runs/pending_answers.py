"""Answers for suspended nodes of a run that is executed: who executes it looks for them, and takes them into its next cut.

Nobody else may write its checkpoints. An answer is kept under its node and since when that waits: it is for no other suspension.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from checkpoint_plugin.codec import Codec, MalformedValue
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import column_bytes, telling_damage
from checkpoint_plugin.database.sqlite_rows import FROM_SQLITE
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.errors import NodeNotSuspended, NotResumable, StoreDamaged, StoreUnreachable
from checkpoint_plugin.status import EXECUTED
from checkpoint_plugin.store import Store
from checkpoint_plugin.stored_bytes.digests import digest_of, text_bytes
from checkpoint_plugin.stored_bytes.sealing import Seal
from checkpoint_plugin.tables.definition import is_storable_text
from checkpoint_plugin.tables.lease import LOCK_LEASE, database_now, holder_of, is_held, lock_lease
from hookspecs import Answer, NodeSnapshot, RunNotFound, StoreError, Suspension, SuspensionChanged

__all__ = [
    "BRINGS",
    "FOUND",
    "Inbox",
    "check_since",
    "encode_answers",
    "fetch_kept",
    "forget_answers",
    "hand_over",
    "read_answer",
]

logger = logging.getLogger("checkpoint_plugin")

BRINGS: Final = ", who brings an answer"
"""Ends the name of whoever holds a run for a moment without executing it."""
SQL: Final = "checkpoint_plugin.tables.row_sql"
WAITING: Final = Statement(SQL, "waiting_node")
PUT: Final = Statement(SQL, "put_answer")
FOUND: Final = Statement(SQL, "pending_answers")
DROP: Final = Statement(SQL, "drop_answer")
DROP_ANY: Final = Statement(SQL, "drop_any_answer")


def encode_answers(codec: Codec, run_id: str, answers: Mapping[str, Any]) -> dict[str, bytes]:
    """The bytes of each, by node id.

    Raises:
        ValueNotStorable: one cannot be stored.
    """
    place = "run {!r}, node {!r}, answer".format
    return {node_id: codec.encode(value, partial(place, run_id, node_id)) for node_id, value in answers.items()}


async def hand_over(store: Store, run_id: str, answers: Mapping[str, bytes], asked: Mapping[str, datetime]) -> str | None:
    """Keep answers for whoever executes a run, all of them or none.

    Args:
        store: with the run.
        run_id: the run.
        answers: values by node id, as the store's codec encodes them.
        asked: since when nodes wait for what is answered, by node id.

    Returns:
        Who executes the run; `None` where nobody does, and nothing was kept.

    Raises:
        NodeNotSuspended: a node waits for nothing, or was answered already, or its time has come.
        SuspensionChanged: a node waits for something else.
        NotResumable: the run is cancelled.
        StoreUnreachable: the connection was lost as they were kept, and whether they were is not known.
    """
    seal = await store.seal(run_id)
    written: dict[str, bytes] = {}
    unheard = False

    def work(connection: Connection) -> str | None:
        lease = connection.execute(LOCK_LEASE, {"of_run": run_id}).first()  # nobody saves the run until the end of this
        now = database_now(connection)
        if lease is None or not is_held(lease, now) or lease.owner.endswith(BRINGS):
            return None
        rows: list[dict[str, Any]] = []
        for node_id, value in answers.items():
            if not is_storable_text(node_id):
                raise NodeNotSuspended(run_id, node_id, "idle")
            row = connection.execute(WAITING, {"of_run": run_id, "of_node": node_id}).first()
            if row is None:
                raise RunNotFound(run_id, store.location.shown)
            if row.run_status == "cancelled":
                raise NotResumable(run_id, "it is cancelled")
            if row.run_status not in EXECUTED:
                return None
            since = _since(run_id, node_id, row, now)
            if row.digest is not None and _is_sound(run_id, node_id, since, row, seal):
                raise NodeNotSuspended(run_id, node_id, "answered already")
            check_since(run_id, node_id, asked.get(node_id), since)
            rows.append(_row(run_id, node_id, since, value, seal))
        for row in rows:
            _put(connection, row, now)
            written[row["of_node"]] = row["digest"]
        return str(holder_of(lease))

    def is_kept(connection: Connection) -> bool:
        """Whether a try of which nobody heard was done, and nobody has taken what it kept."""
        nonlocal unheard
        unheard = True
        connection.execute(LOCK_LEASE, {"of_run": run_id}).first()
        found = connection.execute(FOUND, {"of_run": run_id}).all()
        return any(row.digest == written.get(row.node_id) for row in found if row.digest is not None)

    try:
        with telling_damage(run_id, "its lease, or the row of a node"):
            executes = await store.surely(work, is_kept)
    except (NodeNotSuspended, SuspensionChanged) as error:
        if unheard:  # it may have been taken
            raise _unknown(run_id, store) from error
        raise
    if executes is None and unheard:
        raise _unknown(run_id, store)
    return executes


def _unknown(run_id: str, store: Store) -> StoreUnreachable:
    return StoreUnreachable(
        f"the connection to the store at {store.location.shown} was lost as an answer was written, and run {run_id!r} has "
        "gone on since, with it or without. Whether it was written is not known. See who waits: `workflow suspended`."
    )


def _row(run_id: str, node_id: str, since: datetime, value: bytes, seal: Seal) -> dict[str, Any]:
    place = _place(node_id, since)
    body = seal.seal(value, *place)
    digest = digest_of(text_bytes(run_id), *place, body)
    return {"of_run": run_id, "of_node": node_id, "since": since, "body": body, "digest": digest}


def _put(connection: Connection, row: Mapping[str, Any], now: datetime) -> None:
    connection.execute(DROP_ANY, {"of_run": row["of_run"], "of_node": row["of_node"]})
    connection.execute(PUT, {**row, "brought_at": now})


def _since(run_id: str, node_id: str, row: Any, now: datetime) -> datetime:
    """Since when a node waits that may be answered."""
    if row.status != "suspended" or row.suspended_at is None:
        raise NodeNotSuspended(run_id, node_id, row.status or "idle")
    since: datetime = row.suspended_at
    # One that was answered has the time of the cut that tells so, by the clock of the host that took it: it may be ahead.
    if row.wake_at is not None and row.wake_at <= max(now, row.updated_at):
        raise NodeNotSuspended(run_id, node_id, "answered already, or its time has come")
    return since


def _is_sound(run_id: str, node_id: str, since: datetime, row: Any, seal: Seal) -> bool:
    """Whether an answer for this suspension is there; one that is damaged may be given again."""
    try:
        _opened(run_id, node_id, since, row, seal)
    except (StoreDamaged, MalformedValue):
        return False
    return True


def check_since(run_id: str, node_id: str, asked: datetime | None, since: datetime | None) -> None:
    """Refuse an answer to what a node waited for before.

    Raises:
        SuspensionChanged: it waits for something else by now.
    """
    if asked is not None and asked != since:
        raise SuspensionChanged(run_id, node_id, asked, since)


def _place(node_id: str, since: datetime) -> tuple[bytes, ...]:
    return b"answer", text_bytes(node_id), since.astimezone(UTC).isoformat().encode()


def _opened(run_id: str, node_id: str, since: datetime, row: Any, seal: Seal) -> bytes:
    with telling_damage(run_id, f"the answer for node {node_id!r}"):
        body, place = column_bytes(row.body), _place(node_id, since)
        is_whole = digest_of(text_bytes(run_id), *place, body) == column_bytes(row.digest)
    if not is_whole:
        raise StoreDamaged(run_id, f"the answer for node {node_id!r} was changed")
    return seal.open(body, *place)


def read_answer(run_id: str, row: Any, codec: Codec, seal: Seal) -> Answer:
    """The answer of a row.

    Raises:
        StoreDamaged: it is not what was written.
        ValueNotReadable: it is whole, but of a type that is not known here.
    """
    with telling_damage(run_id, f"the answer for node {row.node_id!r}"):
        since = _time(row.since)
    try:
        return Answer(row.node_id, since, codec.decode(_opened(run_id, row.node_id, since, row, seal)))
    except MalformedValue as error:
        raise StoreDamaged(run_id, f"the answer for node {row.node_id!r}: {error}") from error


async def fetch_kept(store: Store, run_id: str) -> Mapping[str, datetime]:
    """Since when nodes of a run wait for what is kept for them, by node id."""
    rows = await store.transact(lambda connection: connection.execute(FOUND, {"of_run": run_id}).all(), write=False)
    kept: dict[str, datetime] = {}
    for row in rows:
        with suppress(TypeError, ValueError):  # with a time that is none it is for nobody
            kept[row.node_id] = _time(row.since)
    return kept


async def forget_answers(store: Store, run_id: str, kept: Mapping[str, datetime]) -> None:
    """Drop answers of a run.

    Args:
        store: with the run.
        run_id: the run.
        kept: since when nodes wait for what was answered, by node id; one for another suspension stays.
    """
    rows = [{"of_run": run_id, "of_node": node_id, "since": since} for node_id, since in kept.items()]

    def work(connection: Connection) -> None:
        for row in rows:
            connection.execute(DROP, row)

    if rows:
        await store.surely(work, lambda connection: False)


class Inbox:
    """The answers for one run, for whoever executes it.

    Args:
        store: of the run.
        run_id: the run.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._found: dict[str, datetime] = {}
        """By node, since when it waits for what was answered."""
        self._told: set[tuple[str, datetime]] = set()

    async def look(self) -> Sequence[Answer]:
        """All that are kept now. One that cannot be read is told to the log once, and left: its node waits on."""
        store, run_id = self._store, self._run_id
        seal = await store.seal(run_id)
        rows = await store.transact(lambda connection: connection.execute(FOUND, {"of_run": run_id}).all(), write=False)
        return await store.compute(lambda: self._read(rows, seal)) if rows else ()

    def _read(self, rows: Sequence[Any], seal: Seal) -> Sequence[Answer]:
        found = []
        for row in rows:
            try:
                answer = read_answer(self._run_id, row, self._store.codec, seal)
            except StoreError as error:
                if (row.node_id, row.since) not in self._told:
                    self._told.add((row.node_id, row.since))
                    logger.warning("run %s: an answer is left: %s", self._run_id, error)
                continue
            self._found[answer.node_id] = answer.since
            found.append(answer)
        return found

    async def keep(self, nodes: Sequence[NodeSnapshot], epoch: int) -> Mapping[str, datetime]:
        """Keep answers that this attempt was given as it began, as those of others: of who comes at the same time one is refused.

        Args:
            nodes: of the cut that is to tell of them.
            epoch: under which it is saved.

        Returns:
            Since when nodes wait for what was answered so, by node id.

        Raises:
            NodeNotSuspended: somebody else was faster; nothing was kept.
            LeaseLost: another worker took the run; nothing was kept.
            ValueNotStorable: a value cannot be stored; nothing was kept.
        """
        store, run_id, codec = self._store, self._run_id, self._store.codec
        given = {node.node_id: asked for node in nodes if (asked := node.suspension) is not None and _is_given(node, asked)}
        own = {node_id: asked for node_id, asked in given.items() if self._found.get(node_id) != asked.since}
        if not own:
            return {}
        seal = await store.seal(run_id)

        def encode() -> Mapping[str, dict[str, Any]]:
            encoded = encode_answers(codec, run_id, {node_id: asked.answer for node_id, asked in own.items()})
            return {node_id: _row(run_id, node_id, own[node_id].since, value, seal) for node_id, value in encoded.items()}

        rows = await store.compute(encode)

        def work(connection: Connection) -> None:
            lock_lease(connection, run_id, epoch)
            now = database_now(connection)
            for found in connection.execute(FOUND, {"of_run": run_id}).all():
                row = rows.get(found.node_id)
                if row is None or found.digest == row["digest"]:
                    continue  # in the latter case nobody heard that it was done
                if _is_sound(run_id, found.node_id, row["since"], found, seal):
                    raise NodeNotSuspended(run_id, found.node_id, "answered already")
            for row in rows.values():
                _put(connection, row, now)

        await store.surely(work, lambda connection: False)
        kept = {node_id: asked.since for node_id, asked in own.items()}
        self._found.update(kept)
        return kept

    async def forget(self, nodes: Sequence[NodeSnapshot]) -> None:
        """Drop those that a cut has which is durable now.

        Args:
            nodes: of the cut.
        """
        await self.drop([node.node_id for node in nodes if (since := self._found.get(node.node_id)) and not _waits(node, since)])

    async def drop(self, node_ids: Collection[str]) -> None:
        """Drop those of nodes.

        Args:
            node_ids: for which they were found, or kept.
        """
        try:
            await forget_answers(self._store, self._run_id, {node_id: self._found.pop(node_id) for node_id in node_ids})
        except StoreError as error:  # it is for a suspension that is over, and for no other
            logger.info("run %s: answers that were taken are left in the store: %s", self._run_id, error)


def _is_given(node: NodeSnapshot, asked: Suspension) -> bool:
    """Whether a node was answered, and not woken by its time: of that a look afterwards tells whether somebody was faster."""
    return node.status == "suspended" and asked.answered and (asked.wake_at is None or asked.answer is not None)


def _time(stored: Any) -> datetime:
    moment: datetime = stored if isinstance(stored, datetime) else FROM_SQLITE["time"](stored)
    return moment


def _waits(node: NodeSnapshot, since: datetime) -> bool:
    """Whether a node still waits for what was answered."""
    asked = node.suspension
    return node.status == "suspended" and asked is not None and not asked.answered and asked.since == since

"""A save: encoded first, then written, on SQLite by one statement a table, on PostgreSQL by a single one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from checkpoint_plugin.bounds import is_epoch
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.database.transaction import write_step
from checkpoint_plugin.errors import StoreDamaged
from checkpoint_plugin.saving.cut_encoder import CutEncoder
from checkpoint_plugin.saving.light import is_light
from checkpoint_plugin.saving.series import fetch_series_ends
from checkpoint_plugin.saving.statements import MANY, ONE, SAVES, Kind, rows_statement, save_statement, sqlite_statements
from checkpoint_plugin.tables.lease import LOCK_LEASE, Release, lease_lost
from hookspecs import CheckpointRef, StoreError, shorten

__all__ = ["CutWriter"]

LARGE_SAVE: Final = 1 << 20
"""Bytes of payloads beyond which a save is sent in parts."""
MANY_ROWS: Final = 1_000
"""Rows of a table beyond which it is: a message that holds 5,000 takes the driver 15 ms, in which the event loop stands still."""
IN_PARTS: Final = frozenset({"payloads", "segments"})
"""What a large save sends by itself: there is no bound on the bytes of its rows."""
CHECKPOINT_DIGEST: Final = Statement("checkpoint_plugin.saving.save_sql", "checkpoint_digest")
FILED_PAYLOADS: Final = Statement("checkpoint_plugin.saving.save_sql", "filed_payloads")
IN_ORDER: Final = itemgetter(*ONE)
"""The values of a checkpoint's row, as its statement takes them."""


class CutWriter(CutEncoder):
    """One save: what it adds is encoded first, then written, then noted in the history. One that completes the run lets it go.

    It is frozen once it is encoded, so it can be tried again; a try that was done all the same is recognised.
    """

    since: str | None = None
    """The transaction of PostgreSQL since which nobody else may have written the run; `None` where that is not asked for."""

    @property
    def run_id(self) -> str:
        """The run."""
        return self.history.run_id

    def write(self, connection: Connection) -> bool:
        """Write it in a transaction.

        Returns:
            Whether the run's lease was held under the history's epoch, and the history is up to date; else nothing was
            written.
        """
        if connection.kind != "postgresql" or not self.is_large:
            return write_step(connection, self)
        # A server takes no message above a gigabyte. The fence goes first: others may share the transaction.
        sql, values = self.statement(whole=False)
        held = self.outcome(connection.core.exec_driver_sql(sql, values).first())
        for sql, values in chain(self.payload_statements(), self.more_statements()) if held else ():
            connection.core.exec_driver_sql(sql, values)
        return held

    def outcome(self, row: Any) -> bool:
        """Whether it was written."""
        return row is not None

    def write_sqlite(self, connection: Any) -> bool:
        """As `write`, on a connection of the standard library, in whose transaction nobody else can write."""
        history, rows, statements = self.history, self.rows, sqlite_statements()
        if connection.execute(statements.advance.sql, statements.advance.parameters(self._fence())).rowcount != 1:
            return False
        shared = self._shared()
        for name in rows.names:
            many, of_all = getattr(rows, name), shared[: len(MANY[name].shared)]
            statements.many[name].execute(connection, of_all, many, self._size)
        connection.execute(statements.checkpoint.sql, statements.checkpoint.parameters(IN_ORDER(rows.head)))
        if not self._goes_on:
            connection.execute(statements.job.sql, statements.job.parameters((history.run_id, *rows.job)))
            if self._snapshot.status == "completed":
                Release(history.run_id, history.epoch).write_sqlite(connection)
        return True

    def statement(self, *, whole: bool = True) -> tuple[str, tuple[Any, ...]]:
        """The whole save as one statement for PostgreSQL, which gives a row when it was written.

        Args:
            whole: off when `payload_statements` went before, and `more_statements` follow, in the same transaction.
        """
        rows, kind = self.rows, self._kind(whole)
        save = save_statement(kind)
        values: list[Any] = [*self._fence()]
        if kind.since:
            values.append(self.since)
        if kind.is_timed:
            values.append(self._snapshot.taken_at)
        values += IN_ORDER(rows.head)
        for name in kind.names:
            many: Sequence[Any] = getattr(rows, name)
            values += _columns(many if whole else many[:MANY_ROWS])
        return save.sql, save.parameters((*values, *rows.job))

    def is_compiled(self, *, whole: bool = True) -> bool:
        """Whether `statement` only has to fill in values."""
        return self._kind(whole) in SAVES

    def compile(self, *, whole: bool = True) -> None:
        """Make what `statement` fills in, for all saves of this kind in this process."""
        save_statement(self._kind(whole))

    def _kind(self, whole: bool) -> Kind:
        names = self.rows.names
        if not whole:
            names = tuple(name for name in names if name not in IN_PARTS)
        return Kind(names, not self._goes_on, self.since is not None)

    def _fence(self) -> tuple[Any, ...]:
        """The values of `statements.FENCE`."""
        history = self.history
        return history.run_id, self.number, history.epoch, history.generation, history.number

    def _shared(self) -> tuple[Any, ...]:
        """The values of `statements.SHARED`."""
        return self.history.run_id, self.number, self._snapshot.taken_at

    @property
    def is_light(self) -> bool:
        """Whether encoding takes so little time that it is done on the event loop, where what it reads was just made."""
        return self._files is None and is_light(self._snapshot.nodes, self.history.saved_items, self._snapshot.context)

    @property
    def is_large(self) -> bool:
        """Whether it is too large for one message."""
        many = 0 if self._payloads is None else self._payloads.row_bytes
        return many > LARGE_SAVE or len(self.rows.nodes) + len(self.rows.changed) > MANY_ROWS

    def payload_statements(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The payloads in parts, for PostgreSQL, none much larger than a single value."""
        return self._in_parts("payloads")

    def _in_parts(self, name: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
        statement, body = rows_statement(name), MANY[name].columns.index("body")
        rows: Sequence[tuple[Any, ...]] = getattr(self.rows, name)
        part: list[tuple[Any, ...]] = []
        size = 0
        for place, row in enumerate(rows, 1):
            part.append(row)
            size += len(row[body])
            if size >= LARGE_SAVE or len(part) >= MANY_ROWS or place == len(rows):
                yield statement.sql, statement.parameters((self.history.run_id, *_columns(part)))
                part, size = [], 0

    def more_statements(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """What `statement` leaves out when it is not the whole save; to be written only where that was, for it is the fence."""
        yield from self._in_parts("segments")
        shared = self._shared()
        for name, kind in MANY.items():
            many = () if name in IN_PARTS else getattr(self.rows, name)
            for first in range(MANY_ROWS, len(many), MANY_ROWS):
                statement = rows_statement(name)
                columns = _columns(many[first : first + MANY_ROWS])
                yield statement.sql, statement.parameters((*shared[: len(kind.shared)], *columns))

    # What comes of it.

    def refused(self, connection: Connection) -> bool:
        """Find out why nothing was written, in a transaction that writes: what it finds is as durable as its own commit.

        A server that waits for standbys shows what it has committed to nobody before they have it, unless the wait was ended.

        Returns:
            Whether it must be encoded again, because rows of the run were pruned, or the save before was written although
            nobody heard so; without, it was written all the same, by a try whose outcome was not heard of.

        Raises:
            LeaseLost: another worker took the run.
            StoreDamaged: its lease has a generation that is none.
            StoreError: the history is not that of the newest checkpoint.
        """
        history = self.history
        row = connection.execute(LOCK_LEASE, {"of_run": history.run_id}).first()
        if row is None or row.epoch != history.epoch:
            raise lease_lost(history.run_id, history.epoch, row)
        if row.newest_number == self.number:
            found = connection.execute(CHECKPOINT_DIGEST, {"of_run": history.run_id, "of_number": self.number})
            digest = found.scalar_one_or_none()
            if digest == self.rows.head["digest"]:
                return False
            written = next((each for each in history.unheard if each.rows.head.get("digest", b"") == digest), None)
            if written is not None:
                written.note()
                history.unheard.clear()
                return True
        if row.newest_number != history.number:
            raise StoreError(
                f"run {history.run_id!r}: its newest checkpoint is {row.newest_number}, and this attempt goes on from "
                f"{history.number}; nothing was written. Resume the run from its newest checkpoint."
            )
        if not is_epoch(row.generation):  # none that a save could name: it would be tried for ever
            raise StoreDamaged(history.run_id, f"the generation of its lease is {shorten(row.generation, 200)}")
        history.forget(row.generation, fetch_series_ends(connection, history.run_id))
        if self._files is not None:  # what is there already is not written once more, only to find that it is
            history.remember(map(bytes, connection.execute(FILED_PAYLOADS, {"of_run": history.run_id}).scalars()))
        return True

    def discard(self) -> None:
        """Delete the files of a save that was refused for good."""
        if self._files is not None:
            self._files.undo()

    def note(self) -> CheckpointRef:
        """Bring the history up to the checkpoint, which is durable now."""
        history = self.history
        history.number = self.number
        history.total = self._cut_hash
        history.status = self._snapshot.status
        for node_id in self._digests if history.suspended else ():
            history.suspended.pop(node_id, None)
        history.suspended.update(self._suspended)
        history.digests.update(self._digests)
        if history.tally is not None:
            history.tally.note(self._over, self._others, self.number, told=bool(self.rows.completed))
        history.remember(self._mentioned)
        history.large = {key: value for key, value in history.large.items() if value.node_id not in self._digests} | self._large
        history.saved_items.update(self._saved_items)
        for node_id in self._digests if history.held else ():
            history.held.pop(node_id, None)
        history.held.update(self._held)
        if self._payloads is not None:
            self._payloads.note()
        details = {"nodes": len(self._digests), "bytes": self._size}
        return CheckpointRef(history.run_id, self.number, self._reason, self._snapshot.taken_at, details)


def _columns(rows: Sequence[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    """Rows by column. One that is empty in all rows has no values: a server makes of that what is missing, and the driver looks
    at each value for half a microsecond."""
    for column in zip(*rows, strict=True):
        yield () if column[0] is None and column.count(None) == len(column) else column

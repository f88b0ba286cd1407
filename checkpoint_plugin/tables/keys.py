"""The keys of a store's runs: each run is encrypted from its first row to its last, or not at all."""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakKeyDictionary

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.damage import column_bytes, telling_damage
from checkpoint_plugin.database.statement import Statement
from checkpoint_plugin.errors import KeyMissing
from checkpoint_plugin.stored_bytes.encryption import KeyRing, WrappedKeys
from checkpoint_plugin.stored_bytes.sealing import PLAIN, Seal

__all__ = ["KEY", "RunKeys", "wrapped_keys"]

KNOWN: Final = 1_000
KEY: Final = Statement("checkpoint_plugin.tables.row_sql", "keys_of_run")
KEY_OF_STORED: Final = Statement("checkpoint_plugin.tables.row_sql", "keys_of_stored_run")


class RunKeys:
    """What opens and seals the bytes of the runs of one store.

    Args:
        ring: the master keys; `None` for a store whose runs are not encrypted.
    """

    def __init__(self, ring: KeyRing | None) -> None:
        self.ring = ring
        self._seals: dict[str, Seal] = {}
        self._found: WeakKeyDictionary[Connection, dict[str, Seal]] = WeakKeyDictionary()
        """By transaction: a run that is deleted may be made anew, with other keys, and all that was written by then is gone."""

    def make(self, run_id: str) -> tuple[Seal, WrappedKeys | None]:
        """The seal of a new run, and its keys, where it is encrypted, to be written with its first rows."""
        return (PLAIN, None) if self.ring is None else self.ring.make(run_id)

    def known(self, run_id: str) -> Seal | None:
        """The seal of a run that was used before."""
        return self._seals.get(run_id)

    def find(self, connection: Connection, run_id: str) -> Seal:
        """The seal of a stored run; that of a run that is not there does nothing.

        Raises:
            KeyMissing: the run is encrypted and its key is not given, or it is not and one is given.
        """
        found = self._seals if self.ring is None else self._found.setdefault(connection, {})
        seal = found.get(run_id)
        if seal is None:
            row = connection.execute(KEY_OF_STORED, {"of_run": run_id}).first()
            if row is None:
                return PLAIN  # it may be made, encrypted, at any moment, also by a process that has a key where this has none
            seal = found[run_id] = self._open(run_id, row)
            self.remember(run_id, seal)
        return seal

    def remember(self, run_id: str, seal: Seal) -> None:
        """This is the seal of a run that is stored: what `make` gave, once that is durable, need not be looked up."""
        self._seals[run_id] = seal
        while len(self._seals) > KNOWN:
            del self._seals[next(iter(self._seals))]

    def _open(self, run_id: str, row: Any) -> Seal:
        """The seal of a run by the row of its keys, which is empty where it is not encrypted."""
        is_encrypted = row.key_id is not None
        if is_encrypted and self.ring is None:
            raise KeyMissing(
                f"run {run_id!r} is encrypted with the master key {row.key_id}. Set WORKFLOW_CHECKPOINT_KEY to that key, or "
                "WORKFLOW_CHECKPOINT_KEY_PROVIDER to the name of what provides it."
            )
        if self.ring is None:
            return PLAIN
        if not is_encrypted:
            raise KeyMissing(
                f"run {run_id!r} is not encrypted, and with a key no plain run is used. Unset WORKFLOW_CHECKPOINT_KEY for it."
            )
        return self.ring.open(run_id, wrapped_keys(run_id, row))


def wrapped_keys(run_id: str, row: Any) -> WrappedKeys:
    """The keys of a run, as their row has them.

    Raises:
        StoreDamaged: the row was changed.
    """
    with telling_damage(run_id, "the row of its keys"):
        return WrappedKeys(row.key_id, column_bytes(row.wrapped))

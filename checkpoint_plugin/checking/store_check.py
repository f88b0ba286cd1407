"""A store looked at as a whole: the database itself, then run after run. It only reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import exists, select

from checkpoint_plugin.checking.finding import RESTORE, Finding, RunReport, StoreReport, Unverified, go_on
from checkpoint_plugin.checking.run_check import RunChecked, check_run
from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.errors import StoreDamaged, StoreReadOnly, StoreUnreachable, StoreUnreadable
from checkpoint_plugin.models import JOB, NODE_VERSION, PAYLOAD, RUN_NODE_STATE
from checkpoint_plugin.opening.listed_runs import UNFOUND
from checkpoint_plugin.opening.witness import Witness
from checkpoint_plugin.tables.definition import is_storable_text
from hookspecs import RunNotFound

if TYPE_CHECKING:
    from checkpoint_plugin.store import Store

__all__ = ["check_store"]

MOST_MESSAGES: Final = 100
SALVAGE: Final = "Restore the file from a copy; what can still be read, `sqlite3 FILE .recover` copies into a new one."
Tell = Callable[[int, int], None]


async def check_store(
    store: Store, run_ids: Sequence[str] = (), witness: Path | None = None, tell: Tell = lambda done, count: None
) -> StoreReport:
    """Look at everything of a store.

    Args:
        store: an open one.
        run_ids: only these runs, and the database itself.
        witness: the folder of the witness; default: the one that is stored with a run.
        tell: called after every run with how many are done, and how many there are.

    Raises:
        RunNotFound: a run that is named is not there.
        StoreUnreachable: the connection was lost.
        StoreReadOnly: who looks has not the rights to.
    """
    for run_id in run_ids:
        if not is_storable_text(run_id):
            raise RunNotFound(run_id, store.location.shown)
    findings: list[Finding] = []
    wanted: Sequence[str] = list(dict.fromkeys(run_ids))
    try:
        findings += await store.transact(_faults, write=False)
        if not run_ids:
            listed = await store.transact(_run_ids, write=False)
            wanted = [run_id for run_id in listed if type(run_id) is str]
            findings += [
                Finding(None, f"a run has the id {odd!r}, which is no text", SALVAGE) for odd in listed if odd not in wanted
            ]
    except (StoreUnreachable, StoreReadOnly):  # of who looks, not of what is there
        raise
    except StoreUnreadable as error:
        findings.append(_unreadable(None, error))
    runs = []
    for done, run_id in enumerate(wanted, 1):
        try:
            runs.append(await _check(store, run_id, witness))
        except RunNotFound:
            if run_ids:
                raise
            if run_id in await store.transact(_run_ids, write=False):  # else it was pruned since it was listed
                runs.append(RunReport(run_id, findings=(Finding(run_id, UNFOUND, SALVAGE),)))
        tell(done, len(wanted))
    return StoreReport(runs, findings)


async def _check(store: Store, run_id: str, folder: Path | None) -> RunReport:
    look = partial(
        check_run, run_id=run_id, codec=store.codec, ring=store.keys.ring, blobs=store.blobs, shown=store.location.shown
    )
    try:
        checked = await store.transact(look, write=False)
        if checked.report.findings:  # a file may have been pruned since its row was read: the next moment tells
            checked = await store.transact(look, write=False)
    except (StoreUnreachable, StoreReadOnly):
        raise
    except StoreUnreadable as error:
        return RunReport(run_id, findings=(_unreadable(run_id, error),))
    return await store.compute(lambda: _compare(checked, folder))


def _compare(checked: RunChecked, folder: Path | None) -> RunReport:
    """What was found, and what the witness says to it."""
    report = checked.report
    chosen: Any = folder if folder is not None else checked.options.get("witness")
    if not isinstance(chosen, str | Path):
        return report
    witness = Witness(chosen)
    findings, unverified = list(report.findings), list(report.unverified)
    if report.checkpoints and not witness.knows(report.run_id):
        unverified.append(Unverified(report.run_id, f"the witness {chosen} knows nothing of it"))
    try:
        witness.check(report.run_id, *checked.newest)
    except StoreDamaged as error:
        findings.append(Finding(report.run_id, error.what, go_on(report.run_id, report.newest_intact), error.number))
    except StoreUnreadable as error:
        unverified.append(Unverified(report.run_id, str(error)))
    return RunReport(report.run_id, report.checkpoints, report.damaged, findings, unverified)


def _unreadable(run_id: str | None, error: StoreUnreadable) -> Finding:
    """What cannot be read: the message says what to do already."""
    what, _, advice = str(error).partition(". ")
    return Finding(run_id, what, advice or RESTORE)


def _run_ids(connection: Connection) -> Sequence[Any]:
    """The ids of all runs; SQLite keeps anything in any column."""
    return list(connection.execute(select(JOB.c.id).order_by(JOB.c.created_at, JOB.c.id)).scalars())


def _faults(connection: Connection) -> Sequence[Finding]:
    """What SQLite finds in its file; PostgreSQL looks after its own, but for rows of runs that are gone."""
    if connection.kind != "sqlite":
        return list(_orphans(connection))
    found = connection.core.exec_driver_sql(f"PRAGMA integrity_check({MOST_MESSAGES})").scalars().all()
    faults = [f"SQLite: {text}" for text in found if text != "ok"]
    for table, rowid, parent, _ in connection.core.exec_driver_sql("PRAGMA foreign_key_check").all()[:MOST_MESSAGES]:
        faults.append(f"SQLite: row {rowid} of {table} belongs to nothing in {parent}")
    return [Finding(None, what, SALVAGE) for what in faults]


def _orphans(connection: Connection) -> Iterable[Finding]:
    """Rows that belong to no run, in the tables that have no foreign key there (`models._of_run`)."""
    for table in (NODE_VERSION, RUN_NODE_STATE, PAYLOAD):
        of_none = select(table.c.run_id).distinct().where(~exists().where(JOB.c.id == table.c.run_id)).limit(MOST_MESSAGES)
        for run_id in connection.execute(of_none).scalars():
            what = f"{table.name} has rows of run {run_id!r}, which is not there: somebody deleted it by hand"
            yield Finding(None, what, f"Restore the run from a copy of the database, or delete these rows of {table.name}.")

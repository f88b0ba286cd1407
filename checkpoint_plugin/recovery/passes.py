"""Going through runs that wait, claiming one after the other and executing several at the same time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from inspect import CORO_CREATED, getcoroutinestate
from typing import Final, TypeVar

from checkpoint_plugin.database.connection import Connection
from checkpoint_plugin.database.unbroken import take
from checkpoint_plugin.errors import StoreMissing, StoreUnreachable
from checkpoint_plugin.recovery.claims import CLAIM_SECONDS, Claim, Search, claim_run, end_claim, is_claimed, keep_claim, may_wait
from checkpoint_plugin.recovery.resumption import RecoveryOutcome, Resumption
from checkpoint_plugin.runs.access import StoreAccess
from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.lease import database_now
from hookspecs import StoreError, WorkflowError

__all__ = ["RecoveryPass"]

logger = logging.getLogger("checkpoint_plugin")

T = TypeVar("T")
RECONNECT_SECONDS: Final = 30.0
"""How long a database that went away may stay away before a recovery gives up."""
LONGEST_REST: Final = 600.0
"""Seconds after which a run that could not be resumed is tried again, at the latest."""


class RecoveryPass:
    """Resumes what waits.

    Args:
        access: to the store.
        resumption: how a run is gone on with.
        search: for which runs.
        max_attempts: a run of which so many recoveries came to no end is set aside.
    """

    def __init__(self, access: StoreAccess, resumption: Resumption, search: Search, max_attempts: int) -> None:
        self._access = access
        self._resumption = resumption
        self._search = search
        self._max_attempts = max_attempts
        self._is_told = False

    async def outcomes(
        self, at_once: int, watch_seconds: float | None, trouble: Callable[[StoreError], object] | None
    ) -> AsyncGenerator[RecoveryOutcome, None]:
        """As `RecoveryService.recover`."""
        # What is claimed is written: in a single pass no run is taken twice.
        before = await self._now() if watch_seconds is None else None
        damaged: list[str] = []  # of these nothing is written
        rests = _Rests(watch_seconds or 0)
        running: dict[asyncio.Task[RecoveryOutcome], Claim] = {}
        try:
            while True:
                try:
                    while len(running) < at_once:
                        claim = await self._claim(rests.now() if before is None else damaged, before)
                        if claim is None:
                            break
                        if claim.damaged is not None:
                            damaged.append(claim.run_id)
                        rests.begin(claim.run_id)
                        task = asyncio.create_task(self._recover(claim), name=f"workflow-recovery-{claim.run_id}")
                        running[task] = claim
                except StoreError as error:
                    if trouble is None:
                        raise
                    trouble(error)
                if not running and watch_seconds is None:
                    return
                if not running:
                    await asyncio.sleep(watch_seconds or 0)
                    continue
                done, _ = await asyncio.wait(running, timeout=watch_seconds, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    run_id = running.pop(task).run_id
                    try:
                        outcome = task.result()
                    except StoreError as error:  # of how it ended nothing could be written: its claim ends by itself
                        if trouble is None:
                            raise
                        trouble(error)
                        outcome = None
                    rests.end(run_id, outcome)
                    if outcome is not None:
                        yield outcome
        finally:
            # A task that is cancelled before its first step never begins, and so cannot end what was claimed for it.
            unbegun = [claim for task, claim in running.items() if _is_unbegun(task)]
            for task in running:
                task.cancel()
            ends = [self._end(claim, counts=False) for claim in unbegun if claim.damaged is None]
            await asyncio.gather(*running, *ends, return_exceptions=True)  # what they could not write any more is found again

    async def _now(self) -> datetime | None:
        """The time by the clock of the database; `None` where there is none."""
        try:
            return await self._durably(lambda store: store.transact(database_now, write=False))
        except StoreMissing as error:
            self._tell_missing(error)
            return None

    async def _claim(self, without: Sequence[str], before: datetime | None) -> Claim | None:
        search = replace(self._search, strategies=self._resumption.strategies, before=before, without=without)
        tried: Claim | None = None  # it may have been made although nobody heard of it

        def claim(connection: Connection) -> Claim | None:
            nonlocal tried
            if tried is None or not is_claimed(connection, tried):
                tried = claim_run(connection, self._resumption.worker_id, search, self._max_attempts)
            return tried

        async def work(store: Store) -> Claim | None:
            waits = tried is not None or await store.transact(lambda connection: may_wait(connection, search), write=False)
            return await take(store.transact(claim), give_back) if waits else None

        async def give_back(claim: Claim | None) -> None:
            if claim is not None and claim.damaged is None:
                await self._end(claim, counts=False)

        try:
            return await self._durably(work)
        except StoreMissing as error:
            self._tell_missing(error)
            return None

    def _tell_missing(self, error: StoreMissing) -> None:
        """Once: a job that looks in the wrong folder would recover nothing for ever, and nobody would know."""
        if not self._is_told:
            logger.warning("nothing is recovered: %s", error)
        self._is_told = True

    async def _durably(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Do something in the store, again where the connection was lost: a database may be restarted while runs are resumed."""
        deadline, pause = time.monotonic() + RECONNECT_SECONDS, 0.05
        while True:
            try:
                async with self._access.open(create=False) as store:
                    return await work(store)
            except StoreUnreachable:
                if time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)

    async def _recover(self, claim: Claim) -> RecoveryOutcome:
        if claim.set_aside is not None:
            return RecoveryOutcome(claim.run_id, "set_aside", claim.set_aside)
        if claim.damaged is not None:
            return RecoveryOutcome(claim.run_id, "refused", claim.damaged)
        beat = asyncio.create_task(self._keep_claim(claim), name="workflow-recovery-claim")
        counts: bool | None = True
        stopped = False
        try:
            try:
                async with self._access.open(create=False) as store:
                    outcome = await self._resumption.go_on(store, claim.run_id, claim.strategy, claim.attempt)
            except WorkflowError as error:
                outcome = RecoveryOutcome(claim.run_id, "refused", str(error))
            if outcome.status in ("held", "refused"):
                counts = False
            elif outcome.status != "died":
                counts = None
        except asyncio.CancelledError:
            counts, stopped = False, True
            raise
        finally:
            beat.cancel()
            await asyncio.wait((beat,))
            await self._end(claim, counts=counts, stopped=stopped)
        return outcome

    async def _end(self, claim: Claim, *, counts: bool | None, stopped: bool = False) -> None:
        """Let a run go, as `end_claim`."""

        def end(connection: Connection) -> None:
            end_claim(connection, claim, counts=counts, stopped=stopped)

        await self._durably(lambda store: store.transact(end))

    async def _keep_claim(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(CLAIM_SECONDS / 3)
            with suppress(StoreError):  # the next sign of life may come through
                await self._durably(lambda store: store.transact(lambda connection: keep_claim(connection, claim)))


def _is_unbegun(task: asyncio.Task[RecoveryOutcome]) -> bool:
    work = task.get_coro()
    return isinstance(work, Coroutine) and getcoroutinestate(work) == CORO_CREATED


class _Rests:
    """Runs that a watch leaves alone for a while: what it executes, and what could not be resumed, longer at each try.

    Args:
        seconds: between two tries of a run at least.
    """

    def __init__(self, seconds: float) -> None:
        self._first = seconds
        self._until: dict[str, tuple[float, float]] = {}

    def now(self) -> list[str]:
        """Those to leave alone now."""
        now = time.monotonic()
        self._until = {run_id: rest for run_id, rest in self._until.items() if now < rest[0] + 2 * LONGEST_REST}
        return [run_id for run_id, (until, _) in self._until.items() if now < until]

    def begin(self, run_id: str) -> None:
        """It is executed from now on."""
        self._until[run_id] = (float("inf"), self._until.get(run_id, (0.0, 0.0))[1])

    def end(self, run_id: str, outcome: RecoveryOutcome | None) -> None:
        """It is over; with what came of it, if that is known."""
        rest = self._until[run_id][1]
        rest = max(2 * rest, self._first) if outcome is None or outcome.status in ("held", "refused", "died") else 0.0
        self._until[run_id] = (time.monotonic() + max(min(rest, LONGEST_REST), self._first), rest)

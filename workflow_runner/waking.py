"""Suspended nodes go on while others still move: with an answer that was brought meanwhile, or when their time has come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from hookspecs import Answer, Suspension
from workflow_runner.task import start_task

if TYPE_CHECKING:
    from workflow_runner.actor import Actor
    from workflow_runner.run import Run
    from workflow_runner.saver import Saver

__all__ = ["Waking"]

logger = logging.getLogger("workflow_runner")

LOOK_SECONDS: Final = 1.0
"""Between two looks for answers while a node waits and others go on."""
LONGEST_SLEEP: Final = 3600.0
"""Seconds after which clocks are compared anew: a wake time is a time of day."""


class Waking:
    """Wakes the suspended nodes of one run, in a task that there is once a node is suspended.

    What wakes a node is durable before its body is started again, as in a resume: nobody can be told otherwise afterwards.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._fetch = run.hooks.fetch_answers
        self._asleep: dict[str, Actor] = {}
        self._times: list[tuple[datetime, int, Actor, Suspension]] = []
        """A heap: when actors are to be woken, those first that come first. Times of those answered before are left in it."""
        self._count = count()
        self._last = False
        """Whether nothing can move any more, and one look remains before the run ends as suspended."""
        self._over = False
        self._wanted = asyncio.Event()
        self._looked = run.loop.time()
        self._task: asyncio.Task[None] | None = None

    def watch(self, actor: Actor) -> None:
        """An actor is suspended and at rest."""
        self._asleep[actor.node_id] = actor
        asked = actor.suspension
        if asked is not None and asked.wake_at is not None:
            if len(self._times) > 2 * len(self._asleep):  # most are of suspensions that are over
                self._times = sorted(filter(_is_awaited, self._times))
            # Two times of one zone are compared by what its clocks show, which may be the same hour twice.
            heappush(self._times, (asked.wake_at.astimezone(UTC), next(self._count), actor, asked))
        self._wanted.set()
        if self._task is None and not self._over:
            # Not in the context of who is suspended: what that has set is its own.
            self._task = start_task(self._run.loop, self._watch(), "workflow-waking", self._run.context.copy())

    def look_last(self) -> bool:
        """Nothing can move any more: look once for answers before the run ends as suspended; whether there is anybody to ask."""
        if self._fetch is None or self._task is None:
            return False
        self._last = True
        self._wanted.set()
        return True

    async def stop(self) -> None:
        """Wake nobody any more. A look under way is not torn apart, unless it takes longer than a stopped run waits."""
        self._over = True
        if self._task is not None:
            self._wanted.set()
            limit = self._run.loop.call_later(self._run.settings.grace_seconds, self._give_up_look)
            await self._run.until(self._task)
            limit.cancel()

    def _give_up_look(self) -> None:
        run = self._run
        assert self._task is not None
        logger.warning("run %s: left after %s s of grace, while it looks for answers", run.run_id, run.settings.grace_seconds)
        self._task.cancel()

    async def _watch(self) -> None:
        try:
            while not self._is_over:
                await self._pause()
                if not self._is_over:
                    await self._look()
        except asyncio.CancelledError:  # as in `Run.until`
            self._run.stop("cancel")
        except Exception as error:
            self._run.crashed(error)

    @property
    def _is_over(self) -> bool:
        return self._over or self._run.stopping

    async def _pause(self) -> None:
        """Until there is something to look for."""
        while not self._is_over and not self._last and (seconds := self._seconds()) > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._wanted.wait()
            except TimeoutError:
                return
            self._wanted.clear()

    def _seconds(self) -> float:
        """How long nobody has to be woken."""
        looks = self._fetch is not None and self._asleep
        seconds = self._looked + LOOK_SECONDS - self._run.loop.time() if looks else LONGEST_SLEEP
        while self._times and not _is_awaited(self._times[0]):
            heappop(self._times)
        if self._times:
            seconds = min(seconds, (self._times[0][0] - datetime.now(UTC)).total_seconds())
        return seconds

    async def _look(self) -> None:
        """Wake those that were answered, and those whose time has come; the latter not where nothing else moves."""
        ends, self._last = self._last, False
        answers = await self._answers()
        if self._is_over:
            return
        woken = self._take(answers or ())
        due = [] if ends else self._take_due()
        if woken or due:
            await self._save()
            await self.correct(due)
        elif self._asleep and self._saver.is_behind:
            self._saver.request("suspend")  # nobody can answer what could not be saved
        for actor in (*woken, *due):
            if not self._is_over:
                actor.start()
        if ends and not woken:
            self._run.end_suspended()

    async def _answers(self) -> Sequence[Answer] | None:
        """What was brought; `None` where that cannot be read now."""
        self._looked = self._run.loop.time()
        return () if self._fetch is None else await self._fetch(self._run.info)

    async def _known_answers(self) -> Sequence[Answer]:
        """What was brought, as soon as that can be read; nothing where the run ends before."""
        while not self._is_over:
            if (answers := await self._answers()) is not None:
                return answers
            self._wanted.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(0 if self._is_over else LOOK_SECONDS):
                    await self._wanted.wait()
        return ()

    def _take(self, answers: Sequence[Answer]) -> list[Actor]:
        woken = []
        for answer in answers:
            actor = self._asleep.get(answer.node_id)
            if actor is not None and actor.suspension is not None and actor.suspension.since == answer.since:
                self._answer(actor, answer.value)
                woken.append(actor)
        return woken

    def _take_due(self) -> list[Actor]:
        woken, now = [], datetime.now(UTC)
        while self._times and self._times[0][0] <= now:
            time = heappop(self._times)
            if _is_awaited(time):
                actor = time[2]
                self._answer(actor, None)
                woken.append(actor)
        return woken

    async def correct(self, due: Sequence[Actor]) -> None:
        """It is durable that the time of these has passed: an answer that came before counts, for who brought it was told so."""
        answers = await self._known_answers() if due else ()
        found = False
        for actor in due:
            suspension = actor.suspension
            for answer in answers:
                if suspension is not None and (answer.node_id, answer.since) == (actor.node_id, suspension.since):
                    actor.resume_with(replace(suspension, answer=answer.value))
                    found = True
        if found:
            await self._save()

    def _answer(self, actor: Actor, value: object) -> None:
        assert actor.suspension is not None
        del self._asleep[actor.node_id]
        actor.resume_with(replace(actor.suspension, answered=True, answer=value))
        actor.leave_wait()  # from here on the run has not come to a standstill

    async def _save(self) -> None:
        """Make durable what was answered; where the run ends meanwhile, its last cut has it."""
        await asyncio.wait((self._saver.request_first("answer"),))

    @property
    def _saver(self) -> Saver:
        saver = self._run.saver
        assert saver is not None
        return saver


def _is_awaited(time: tuple[datetime, int, Actor, Suspension]) -> bool:
    """Whether the actor still waits for this time: with an answer it has another suspension."""
    _, _, actor, asked = time
    return actor.suspension is asked

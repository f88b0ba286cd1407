"""Suspended nodes go on while others still move: with an answer that was brought meanwhile, or when their time has come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from hookspecs import Answer
from workflow_runner.task import start_task

if TYPE_CHECKING:
    from workflow_runner.actor import Actor
    from workflow_runner.run import Run

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
        self._times: list[tuple[datetime, int, Actor]] = []
        """A heap: when actors are to be woken, those first that come first."""
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
        if actor.suspension is not None and actor.suspension.wake_at is not None:
            heappush(self._times, (actor.suspension.wake_at, next(self._count), actor))
        self._wanted.set()
        if self._task is None and not self._over:
            self._task = start_task(self._run.loop, self._watch(), "workflow-waking")

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
        if self._times:
            seconds = min(seconds, (self._times[0][0] - datetime.now(UTC)).total_seconds())
        return seconds

    async def _look(self) -> None:
        """Wake those that were answered, and those whose time has come; the latter not where nothing else moves."""
        ends, self._last = self._last, False
        answers = await self._answers()
        if self._is_over:
            return
        woken = self._take(answers)
        due = [] if ends else self._take_due()
        if woken or due:
            await self._save()
            if due and not self._is_over and self._correct(await self._answers(), due):
                await self._save()
        for actor in (*woken, *due):
            if not self._is_over:
                actor.start()
        if ends and not woken:
            self._run.end_suspended()

    async def _answers(self) -> Sequence[Answer]:
        self._looked = self._run.loop.time()
        return () if self._fetch is None else await self._fetch(self._run.info)

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
            wake_at, _, actor = heappop(self._times)
            suspension = self._asleep[actor.node_id].suspension if actor.node_id in self._asleep else None
            if suspension is not None and suspension.wake_at == wake_at:  # else it was answered meanwhile
                self._answer(actor, None)
                woken.append(actor)
        return woken

    def _correct(self, answers: Sequence[Answer], due: Sequence[Actor]) -> bool:
        """An answer that came before it was durable that the time had passed counts: who brought it was told so."""
        found = False
        for actor in due:
            suspension = actor.suspension
            for answer in answers:
                if suspension is not None and (answer.node_id, answer.since) == (actor.node_id, suspension.since):
                    actor.resume_with(replace(suspension, answer=answer.value))
                    found = True
        return found

    def _answer(self, actor: Actor, value: object) -> None:
        assert actor.suspension is not None
        del self._asleep[actor.node_id]
        actor.resume_with(replace(actor.suspension, answered=True, answer=value))
        actor.leave_wait()  # from here on the run has not come to a standstill

    async def _save(self) -> None:
        """Make durable what was answered; where the run ends meanwhile, its last cut has it."""
        saver = self._run.saver
        assert saver is not None
        await asyncio.wait((saver.request_first("answer"),))

"""Small writes collected into batches: one task writes them in order, and tries again until it is told to stop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from checkpoint_plugin.errors import StoreUnreadable, WriterStopped

__all__ = ["BatchStats", "BatchWriter"]

T = TypeVar("T")
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0
GRACE_SECONDS: Final = 1.0


@dataclass(slots=True)
class BatchStats:
    """Counts since the writer was made.

    Args:
        queued: writes that were asked for.
        processed: of them, those that are durable; several that became one count as several.
        batches: durable.
        errors: attempts to write a batch that failed.
    """

    queued: int = 0
    processed: int = 0
    batches: int = 0
    errors: int = 0


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    value: T
    asked: int = 1
    waiters: list[asyncio.Future[None]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Caller(Generic[T]):
    """Who stands in line with a value until there is room; `taken` then says when it is durable, to who asks for that."""

    value: T
    place: Hashable
    durable: bool
    taken: asyncio.Future[asyncio.Future[None] | None]


class BatchWriter(Generic[T]):
    """Collects values and writes them by batches, in the order in which they came.

    Args:
        write: writes one batch in one transaction. It is called again with the same batch after `StoreUnreadable`, so it
            must be harmless twice; any other error, or this one for too long, breaks the writer.
        name: of what is written, for errors.
        size: a batch of so many is written at once, or of as many as may wait.
        interval: seconds after which a smaller one is.
        limit: so many values wait at most; who adds one more waits.
        wait_seconds: how long at most.
        give_up_seconds: how long a batch is tried again.
        merge: makes one value of two with the same key: the one that waits, and the new one.
    """

    def __init__(
        self,
        write: Callable[[Sequence[T]], Awaitable[None]],
        *,
        name: str,
        size: int,
        interval: float,
        limit: int = 10_000,
        wait_seconds: float = 5.0,
        give_up_seconds: float = 60.0,
        merge: Callable[[T, T], T] | None = None,
    ) -> None:
        if not (size >= 1 and limit >= 1 and interval >= 0):
            raise ValueError(f"size {size}, interval {interval}: give a size of 1 or more and an interval of 0 or more seconds.")
        if not wait_seconds >= 0:
            raise ValueError(f"who adds a value waits for room for 0 or more seconds, not {wait_seconds}.")
        self.stats = BatchStats()
        self._write = write
        self._name = name
        self._size = min(size, limit)  # more never wait: who stands in line would wait for the time of a batch
        self._interval = interval
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._give_up_seconds = give_up_seconds
        self._merge = merge
        self._waiting: deque[_Entry[T]] = deque()
        self._by_key: dict[Hashable, _Entry[T]] = {}
        self._line: dict[Hashable, list[_Caller[T]]] = {}
        """Who waits for room, in order: those of one key get in together. No key in it is in `_by_key`."""
        self._batch: list[_Entry[T]] = []
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._urgent = False
        self._stopping = False
        self._broken: BaseException | None = None

    @property
    def running(self) -> bool:
        """Whether batches are being written."""
        return self._task is not None and not self._stopping

    @property
    def waiting(self) -> Sequence[T]:
        """What is not durable yet, oldest first."""
        return [entry.value for entry in (*self._batch, *self._waiting)]

    def start(self) -> None:
        """Begin to write, also after a stop of a broken writer; harmless when it has begun."""
        if self._task is None:
            self._stopping, self._broken = False, None
            self._wake = asyncio.Event()
            self._task = asyncio.create_task(self._run(), name=f"workflow-{self._name}")
            for caller in [caller for callers in self._line.values() for caller in callers]:
                if caller.taken.get_loop() is not self._task.get_loop():  # its event loop has ended, and it never goes on
                    self._leave(caller)

    async def put(self, value: T, key: Hashable = None, *, durable: bool = False) -> None:
        """Add a value.

        Args:
            value: what to write.
            key: values of one key that wait together become one, if the writer merges.
            durable: return only when it is, and all before it are.

        Raises:
            WriterStopped: the writer was stopped, or waits too long for its database.
            StoreError: the writer is broken by this error.
        """
        self._check()
        if key in self._by_key or (not self._line and self._has_room()):
            written = self._take(value, key, durable)
        else:
            written = await self._stand_in_line(value, key, durable)
        if written is not None:
            await written

    async def flush(self) -> None:
        """Return when all that waits now is durable.

        Raises:
            WriterStopped: something waits, and the writer is not started.
            StoreError: the writer is broken by this error.
        """
        if self._broken is not None:
            raise self._broken
        entries = [*self._batch, *self._waiting]
        if entries and self._task is None:
            raise WriterStopped(self._name, self.waiting)
        if entries:
            await asyncio.gather(*map(self._ask, entries))  # who waits for one after the other hears of one failure only

    async def stop(self, timeout: float) -> None:
        """Write what waits, and end; harmless when it has ended.

        Args:
            timeout: seconds after which it gives up.

        Raises:
            WriterStopped: so many values are not durable; `unwritten` holds them, and the cause is what kept them.
        """
        self._stopping = True
        task = self._task  # whoever else stops it meanwhile waits for the same
        self._wake.set()
        self._dismiss(self._broken or WriterStopped(self._name, ()))
        if task is not None:
            await asyncio.wait((task,), timeout=timeout)
            if not task.done():
                task.cancel()
                await asyncio.wait((task,), timeout=GRACE_SECONDS)
            if self._task is task:
                self._task = None
        left, broken = self.waiting, self._broken
        for entry in (*self._batch, *self._waiting):
            _settle(entry, broken or WriterStopped(self._name, left))
        self._batch, self._waiting, self._by_key = [], deque(), {}
        if left:
            raise WriterStopped(self._name, left, broken) from broken

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._stopping:
            raise WriterStopped(self._name, ())

    def _has_room(self) -> bool:
        return len(self._waiting) < self._limit

    def _take(self, value: T, key: Hashable, durable: bool) -> asyncio.Future[None] | None:
        """Let a value wait to be written, by itself or within the one of its key; when it is durable, for who asks for it."""
        entry = self._by_key.get(key)
        if entry is not None and self._merge is not None:
            entry.value = self._merge(entry.value, value)
            entry.asked += 1
        else:
            entry = _Entry(value)
            self._waiting.append(entry)
            if self._merge is not None:
                self._by_key[key] = entry
        self.stats.queued += 1
        if len(self._waiting) == 1 or len(self._waiting) >= self._size:
            self._wake.set()
        return self._ask(entry) if durable else None

    async def _stand_in_line(self, value: T, key: Hashable, durable: bool) -> asyncio.Future[None] | None:
        """Wait for room; what it gives is that of `_take`, which was called meanwhile."""
        place = object() if self._merge is None else key
        caller = _Caller(value, place, durable, asyncio.get_running_loop().create_future())
        self._line.setdefault(place, []).append(caller)
        try:
            await asyncio.wait((caller.taken,), timeout=self._wait_seconds)
        finally:
            if not caller.taken.done():
                self._leave(caller)
        if not caller.taken.done():
            raise WriterStopped(self._name, self.waiting, self._broken) from self._broken
        return caller.taken.result()

    def _leave(self, caller: _Caller[T]) -> None:
        callers = self._line.get(caller.place, [])
        if caller in callers:
            callers.remove(caller)
            if not callers:
                del self._line[caller.place]

    def _let_in(self) -> None:
        """Take the values of those who have waited longest, as long as there is room.

        It is done here and not by them: whoever calls before they wake would come first, and be overwritten by what is older.
        """
        while self._line and self._has_room():
            key = next(iter(self._line))
            for caller in self._line.pop(key):
                caller.taken.set_result(self._take(caller.value, key, caller.durable))

    def _dismiss(self, error: BaseException) -> None:
        line, self._line = self._line, {}
        for callers in line.values():
            for caller in callers:
                caller.taken.set_exception(error)
                caller.taken.exception()  # it was heard, also when who waits is cancelled before it wakes

    def _ask(self, entry: _Entry[T]) -> asyncio.Future[None]:
        """What is over when an entry is durable, which is not put off any more."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry.waiters.append(future)
        self._urgent = True
        self._wake.set()
        return future

    async def _run(self) -> None:
        try:
            while await self._ready():
                count = min(len(self._waiting), self._size)
                self._batch = [self._waiting.popleft() for _ in range(count)]
                taken = set(map(id, self._batch))
                self._by_key = {key: entry for key, entry in self._by_key.items() if id(entry) not in taken}
                self._let_in()
                await self._write_batch()
        except asyncio.CancelledError:
            # With all tasks of its event loop: nobody writes any more. One that a stop gave up ends when another may write.
            if self._task is asyncio.current_task() and not self._stopping:
                self._break(WriterStopped(self._name, self.waiting))
            raise
        except Exception as error:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        """Tell everybody who waits, and who comes after them."""
        self._broken = error
        self._dismiss(error)
        for entry in (*self._batch, *self._waiting):
            _settle(entry, error)

    async def _ready(self) -> bool:
        """Wait for a batch that is full, old or asked for; whether there is one."""
        while not self._waiting:
            self._urgent = False
            if self._stopping:
                return False
            self._wake.clear()
            await self._wake.wait()
        due = asyncio.get_running_loop().time() + self._interval
        while len(self._waiting) < self._size and not self._urgent and not self._stopping:
            self._wake.clear()
            try:
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
            except TimeoutError:
                break
        return True

    async def _write_batch(self) -> None:
        values = [entry.value for entry in self._batch]
        pause = FIRST_PAUSE
        last = asyncio.get_running_loop().time() + self._give_up_seconds
        while True:
            try:
                await self._write(values)
                break
            except StoreUnreadable:
                self.stats.errors += 1
                if asyncio.get_running_loop().time() + pause > last:
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except Exception:
                self.stats.errors += 1
                raise
        batch, self._batch = self._batch, []
        self.stats.batches += 1
        self.stats.processed += sum(entry.asked for entry in batch)
        for entry in batch:
            _settle(entry, None)


def _settle(entry: _Entry[T], error: BaseException | None) -> None:
    waiters, entry.waiters = entry.waiters, []
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)

"""The connections to one database, and the writer that goes with them: of one store after the other, or of several at once."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from weakref import WeakKeyDictionary, WeakSet, finalize

from checkpoint_plugin.database.location import Location
from checkpoint_plugin.database.opening import open_database
from checkpoint_plugin.database.transaction import Database
from checkpoint_plugin.saving.group import GroupWriter
from hookspecs import ResourcePool, StoreError

__all__ = ["Connections"]

MOST: Final = 2
"""Times as many as the url allows are open at once, where something was wrong with some that are still used."""
_USED: Final[set[tuple[Path | None, int]]] = set()
"""Files that somebody uses now, and by which connections of this process; a set, as event loops of several threads change it."""
_KEPT: Final[set[tuple[Path | None, int]]] = set()
"""Likewise those that an open runner keeps while nobody uses them."""
_SHARED: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, WeakSet[Connections]]] = WeakKeyDictionary()
"""Those that may be shared, by the event loop to which they belong, while somebody has them."""


@dataclass(frozen=True, slots=True)
class _OfLoop:
    group: GroupWriter
    look: asyncio.Lock


class Connections:
    """Connections, made when they are first needed.

    Who makes them has them alone. So has who takes or shares some, while the stores of an event loop have fewer of them open than
    the url allows; from then on they are given to several, the next to those with the fewest users. Each of these gives them
    back, or closes them, once: they are kept for another run, or closed, when the last one has.

    Args:
        location: of the database.
        create: make the SQLite file and its folder where there is none.

    Raises:
        StoreMissing: there is none, and `create` is off.
        StoreUnreadable: the file cannot be made.
    """

    def __init__(self, location: Location, *, create: bool) -> None:
        self.location = location
        self._name = location.path, id(self)
        self.process_id = os.getpid()
        self.database = open_database(location, create=create)
        self._by_loop: dict[asyncio.AbstractEventLoop, _OfLoop] = {}
        self.is_current = False
        """Whether the tables were found up to date."""
        self.was_current = False
        """Whether they were for an earlier run, so that nearly always they still are."""
        self._pulse: Database | None = None
        self._users = 1
        self._is_sound = True
        self._shared: WeakSet[Connections] | None = None
        """Those among which `share` chooses, if these are."""
        finalize(self, _forget, self._name).atexit = False  # who drops them without closing them uses the file no more
        self._use()

    @classmethod
    def share(cls, location: Location, *, create: bool) -> Self:
        """Some for a run, or for whoever reads or writes one: new ones, or, where there are many, some that others use.

        Args:
            location: of the database.
            create: as of new ones.

        Raises:
            StoreError: as of new ones.
        """
        found = [each for each in _shared() if isinstance(each, cls) and each.location == location and each.database.stands()]
        sound = [each for each in found if each._is_sound]
        # Who waits for days keeps those with which something was wrong, and there may be more and more: so many, and no more.
        if len(sound) >= location.limits.connections or len(found) >= MOST * location.limits.connections:
            fewest = min(sound or found, key=lambda each: each._users)
            fewest._users += 1
            fewest._look_anew()
            return fewest
        made = cls(location, create=create)
        made._offer()
        return made

    @classmethod
    async def take(cls, pool: ResourcePool | None, location: Location, *, create: bool) -> Self:
        """Those that an earlier run of an open runner left; where there are none that still lead there, as `share`.

        Args:
            pool: of the runner; `None` of one that is not open.
            location: of the database.
            create: as of new ones.

        Raises:
            StoreError: as of new ones.
        """
        while pool is not None and isinstance(kept := pool.take(("checkpoint", location)), cls):
            if kept.database.stands():
                kept._users = 1
                kept._use()
                kept._look_anew()
                kept._offer()
                return kept
            await kept.close()
        return cls.share(location, create=create)

    def _look_anew(self) -> None:
        """Have each who takes them look at the tables: another program may have changed them."""
        self.is_current, self.was_current = False, self.was_current or self.is_current

    async def give(self, pool: ResourcePool | None, *, is_sound: bool = True) -> None:
        """Leave them to others: to who uses them, too, else to the next run, else they are closed.

        Args:
            pool: of an open runner; `None` without one.
            is_sound: off where something was wrong with them: nobody takes them any more, as long as there are not too many.
        """
        self._is_sound = self._is_sound and is_sound
        if pool is None or not self._is_sound or self._users > 1:
            return await self.close()
        self._withdraw()
        try:
            await self.group.finish()
            await self._stop_pulse()
            if self._leave():
                await self.database.rest()
        except StoreError:
            await self.close()
        except BaseException:
            await self.close()
            raise
        else:
            _KEPT.add(self._name)
            await pool.give(("checkpoint", self.location), self)

    @property
    def group(self) -> GroupWriter:
        """The writer of the event loop that runs."""
        return self._here().group

    @property
    def look(self) -> asyncio.Lock:
        """Held by who looks at the tables, and makes them where there are none, which takes connections of its own."""
        return self._here().look

    def _here(self) -> _OfLoop:
        """What waits for another event loop is woken by nobody, and what one that was closed has begun is never done."""
        loop = asyncio.get_running_loop()
        found = self._by_loop.get(loop)
        if found is None:
            for other in tuple(self._by_loop):
                if other.is_closed():
                    self._by_loop.pop(other, None)
            found = self._by_loop[loop] = _OfLoop(GroupWriter(self.database), asyncio.Lock())
        return found

    @property
    def pulse(self) -> Database:
        """For signs of life, which wait for no save."""
        if self._pulse is None:
            self._pulse = self.database.beside()
        return self._pulse

    async def close(self) -> None:
        """Write what was handed over, and close all, also when cancelled, unless others use them.

        In a process that was forked meanwhile nothing is done.
        """
        if self.process_id != os.getpid():
            return
        if self._users > 1:
            self._users -= 1
            return
        self._withdraw()
        _KEPT.discard(self._name)
        try:
            await self.group.finish()
            if self._leave() and self._is_among(_KEPT):  # else to close it does the same
                with suppress(StoreError):
                    await self.database.rest()
        finally:
            self._leave()
            try:
                await self._stop_pulse()
            finally:
                await self.database.close()

    def _offer(self) -> None:
        """Let others share them from now on, where there are many."""
        self._shared = _shared()
        self._shared.add(self)

    def _withdraw(self) -> None:
        self._users = 0
        if self._shared is not None:
            self._shared.discard(self)

    def _use(self) -> None:
        _KEPT.discard(self._name)
        _USED.add(self._name)

    def _leave(self) -> bool:
        """Whether nobody in this process uses the file any more: of several that move the log at once, SQLite may damage it."""
        _USED.discard(self._name)
        return not self._is_among(_USED)

    def _is_among(self, names: set[tuple[Path | None, int]]) -> bool:
        return any(path == self.location.path for path, _ in tuple(names))

    async def _stop_pulse(self) -> None:
        pulse, self._pulse = self._pulse, None
        if pulse is not None:
            await pulse.close()


def _shared() -> WeakSet[Connections]:
    return _SHARED.setdefault(asyncio.get_running_loop(), WeakSet())


def _forget(name: tuple[Path | None, int]) -> None:
    _USED.discard(name)
    _KEPT.discard(name)

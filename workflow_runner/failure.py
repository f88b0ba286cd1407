"""What happens when a node fails: how often and when it is tried again, how long a try may take, whether it may be repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from sys import float_info
from typing import Any, Final, Literal

from hookspecs import HookError, Refusal, shorten
from workflow_runner.errors import (
    ItemTypeError,
    LogOverflow,
    NodeDefinitionError,
    NodeProtocolError,
    NodeTimeout,
    ReplayDiverged,
    StateNotCopyable,
)

__all__ = ["NO_POLICY", "ON_FAILURE", "Backoff", "BackoffLike", "FailurePolicy", "OnFailure", "PolicyValueInvalid"]

OnFailure = Literal["fail_fast", "finish_independent"]
ON_FAILURE: Final[tuple[OnFailure, ...]] = ("fail_fast", "finish_independent")

NEVER_RETRIED: Final = (ItemTypeError, LogOverflow, NodeDefinitionError, NodeProtocolError, ReplayDiverged, StateNotCopyable)
"""A second try of the same code on the same items would raise them again; so would one after a plugin's error."""


class PolicyValueInvalid(ValueError):
    """A value of a failure policy is wrong; the text says what it must be."""


def _check_number(name: str, value: object, least: float, *, above: bool = False) -> None:
    # Also an integer is within what floats can be: it is added to times.
    if type(value) not in (int, float) or not least <= value <= float_info.max or (above and value == least):  # type: ignore[operator]
        raise PolicyValueInvalid(f"{name} is a number {'above' if above else 'of at least'} {least:g}, not {shorten(value)}")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a step is tried again: longer each time, and never for two nodes just the same.

    Args:
        initial: seconds before the second try.
        factor: by which each wait is longer than the one before.
        maximum: seconds that a wait has at most.
        jitter: up to so many seconds are added at random; `None` for up to `initial`.
    """

    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 60.0
    jitter: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("initial", 0), ("factor", 1), ("maximum", 0)):
            _check_number(f"backoff {name}", getattr(self, name), least)
        if self.jitter is not None:
            _check_number("backoff jitter", self.jitter, 0)


BackoffLike = float | Sequence[float] | Mapping[str, Any] | Backoff


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """What a node declares, and a graph may override.

    Args:
        retries: how often a step that raised is tried again.
        backoff: the wait before each new try, or the waits, of which the last one is used again and again.
        retry_on: which exceptions are worth a new try.
        timeout: seconds that one try may take, its waiting included; `None` for any time.
        replayable: whether a step may be repeated of which nobody knows whether it had happened.
    """

    retries: int = 0
    backoff: Backoff | tuple[float, ...] = Backoff()
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    timeout: float | None = None
    replayable: bool = True

    @classmethod
    def declared(
        cls, retries: int, backoff: BackoffLike, retry_on: type[BaseException] | Sequence[type[BaseException]], **others: Any
    ) -> FailurePolicy:
        """That of a node type.

        Raises:
            PolicyValueInvalid: a value is wrong.
        """
        classes = (retry_on,) if isinstance(retry_on, (type, str)) else tuple(retry_on)
        for found in classes:
            if not (isinstance(found, type) and issubclass(found, Exception)):
                raise PolicyValueInvalid(f"retry_on takes classes of exceptions, not {shorten(found)}")
        return cls(retry_on=classes).overridden({"retries": retries, "backoff": backoff, **others})

    def overridden(self, options: Mapping[str, Any]) -> FailurePolicy:
        """This policy with the options of a graph's document in place of its own.

        Raises:
            PolicyValueInvalid: an option is unknown, or its value wrong.
        """
        known = [item.name for item in fields(self) if item.name != "retry_on"]
        for name in options:
            if name not in known:
                near = get_close_matches(str(name), known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise PolicyValueInvalid(f"failure has no option {name!r}.{hint} Its options: {', '.join(known)}")
        chosen = dict(options)
        if "retries" in chosen and (type(chosen["retries"]) is not int or chosen["retries"] < 0):
            raise PolicyValueInvalid(f"retries is a whole number of at least 0, not {shorten(chosen['retries'])}")
        if chosen.get("timeout") is not None:
            _check_number("timeout", chosen["timeout"], 0, above=True)
        if not isinstance(chosen.get("replayable", True), bool):
            raise PolicyValueInvalid(f"replayable is true or false, not {shorten(chosen['replayable'])}")
        if "backoff" in chosen:
            chosen["backoff"] = _read_backoff(chosen["backoff"])
        return replace(self, **chosen)

    def tries_again(self, error: BaseException, tries: int) -> bool:
        """Whether a step that raised this is to be tried again.

        Args:
            error: what it raised.
            tries: made so far.
        """
        if tries > self.retries or not isinstance(error, self.retry_on):
            return False
        if isinstance(error, NodeTimeout) and not self.replayable:  # cut short, not failed: it may have done its work
            return False
        never = (*NEVER_RETRIED, HookError, Refusal)
        if isinstance(error, BaseExceptionGroup):
            return error.subgroup(never) is None
        return not isinstance(error, never)

    def delay(self, tries: int) -> float:
        """Seconds to wait before the next try, after so many."""
        # Imported where a node has failed: it costs 30 ms, and most runs never need it.
        from tenacity import AsyncRetrying, RetryCallState, wait_chain, wait_exponential, wait_fixed, wait_random

        state = RetryCallState(AsyncRetrying(), None, (), {})
        state.attempt_number = tries
        match self.backoff:
            case Backoff(initial, factor, maximum, jitter):
                # Of none at all tenacity makes the longest, where the factor by which it grows is too large for a number.
                growing = wait_exponential(initial, max=maximum, exp_base=factor)(state) if initial else 0.0
                return growing + wait_random(0, initial if jitter is None else jitter)(state)
            case seconds:
                return float(wait_chain(*(wait_fixed(each) for each in seconds))(state)) if seconds else 0.0


NO_POLICY: Final = FailurePolicy()


def _read_backoff(given: object) -> Backoff | tuple[float, ...]:
    match given:
        case Backoff():
            return given
        case bool():
            pass
        case int() | float():
            _check_number("backoff", given, 0)
            return Backoff(initial=given)
        case Mapping():
            known = [item.name for item in fields(Backoff)]
            if unknown := [name for name in given if name not in known]:
                raise PolicyValueInvalid(f"backoff has no {unknown[0]!r}. It has: {', '.join(known)}")
            return Backoff(**given)
        case list() | tuple():
            for seconds in given:
                _check_number("backoff", seconds, 0)
            return tuple(given)
    raise PolicyValueInvalid(f"backoff is seconds, a list of seconds, or an object like {{'initial': 1}}, not {shorten(given)}")

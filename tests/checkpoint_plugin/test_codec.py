"""Values survive the round trip exactly, or are refused with their place; bytes depend on nothing but the value."""

from __future__ import annotations

import enum
import gc
import hashlib
import math
import os
import random
import subprocess
import sys
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import ormsgpack
import pytest

from checkpoint_plugin.codec import MalformedValue, decode, encode
from checkpoint_plugin.codec.decoding import MAX_DEPTH
from checkpoint_plugin.codec.tags import Tag
from checkpoint_plugin.errors import ValueNotReadable, ValueNotStorable

EDGES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63) - 1,
    2**70,
    -(10**400),
    0.0,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    5e-324,
    "",
    "a\0b",
    "\ud800 lone",
    "né\U0001f600",
    b"",
    b"\xff\x00",
    bytearray(b"ab"),
    (),
    (1, (2,)),
    [],
    [[], [()]],
    {1, 2, "a"},
    frozenset({(1, 2), frozenset()}),
    {},
    {2: "int", 1.5: "float", None: "none", True: 2, "s": "text", (1, 2): "tuple", b"b": "bytes"},
    {"$type": "tuple", "value": [1]},
    {"\ud800": 1},
    {"b": 1, "a": 2},
    datetime(2026, 1, 2, 3, 4, 5, 6),
    datetime(2026, 1, 2, tzinfo=UTC),
    datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    date(1, 1, 1),
    time(1, 2, 3, 4),
    time(1, 2, tzinfo=UTC),
    timedelta(days=-999999999),
    timedelta(microseconds=1),
    UUID(int=5),
    Decimal("1.10"),
    Decimal("NaN"),
    Decimal("-Infinity"),
    Fraction(1, 3),
    complex(-0.0, math.inf),
    Path("/a/b"),
    PurePosixPath("a"),
    PureWindowsPath("C:/x"),
]


def place() -> str:
    return "here"


def alike(a: Any, b: Any) -> bool:
    """Equal and of the same type all the way down, NaN equal to itself, -0.0 not to 0.0, the order of dicts counted."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return math.isnan(b) if math.isnan(a) else (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, complex):
        return alike(a.real, b.real) and alike(a.imag, b.imag)
    if isinstance(a, Decimal):
        return str(a) == str(b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dict):
        return alike(list(a), list(b)) and alike(list(a.values()), list(b.values()))
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and sorted(encode(x, place) for x in a) == sorted(encode(x, place) for x in b)
    if isinstance(a, datetime | time):
        return a == b and a.fold == b.fold and repr(a.tzinfo) == repr(b.tzinfo)
    return bool(a == b)


@pytest.mark.parametrize("value", EDGES, ids=lambda value: type(value).__name__)
def test_every_edge_comes_back(value: Any) -> None:
    assert alike(decode(encode(value, place)), value)
    assert alike(decode(encode([{"k": value}], place)), [{"k": value}])


def make(rng: random.Random, depth: int = 0) -> Any:
    """A value of the closed set."""
    leaf: list[Callable[[], Any]] = [
        lambda: rng.choice(EDGES),
        lambda: rng.randrange(-(2**80), 2**80),
        lambda: rng.random() * 10 ** rng.randrange(-300, 300),
        lambda: "".join(chr(rng.randrange(0x11000)) for _ in range(rng.randrange(8))),
        lambda: rng.randbytes(rng.randrange(200)),
    ]
    if depth > 3 or rng.random() < 0.4:
        return rng.choice(leaf)()
    items = [make(rng, depth + 1) for _ in range(rng.randrange(5))]
    match rng.randrange(5):
        case 0:
            return items
        case 1:
            return tuple(items)
        case 2:
            return {str(i): item for i, item in enumerate(items)}
        case 3:
            return dict(zip(filter(hashable, items), reversed(items), strict=False))
        case _:
            return {item for item in items if hashable(item)}


def hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def test_random_values_come_back() -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    for number in range(3000):
        value = make(rng)
        data = encode(value, place)
        assert alike(decode(data), value), f"seed {seed}, value {number}: {value!r}"
        assert encode(decode(data), place) == data, f"seed {seed}, value {number}: {value!r}"


class Text(str):
    pass


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    "value",
    [object(), Text("x"), Colour.RED, Level.LOW, Pair(1, 2), OrderedDict(), memoryview(b"x"), len, int, iter([])],
    ids=lambda value: type(value).__name__,
)
def test_what_is_unknown_is_refused_with_its_path(value: Any) -> None:
    with pytest.raises(ValueNotStorable) as caught:
        encode({"rows": [0, {"price": value}]}, place)
    assert "here['rows'][1]['price'] cannot be stored" in str(caught.value)
    assert type(value).__qualname__ in str(caught.value)


def test_a_subclass_is_told_what_it_would_become() -> None:
    with pytest.raises(ValueNotStorable, match="come back as str: convert it"):
        encode(Text("x"), place)


def test_unknown_keys_and_members_are_refused() -> None:
    with pytest.raises(ValueNotStorable, match="key"):
        encode({Colour.RED: 1}, place)
    with pytest.raises(ValueNotStorable, match="member"):
        encode({Colour.RED}, place)


def test_a_zone_of_an_own_type_is_refused() -> None:
    with pytest.raises(ValueNotStorable, match="time zone"):
        encode(datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1), "MINE")), place)


def test_cycles_and_depth_are_refused() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    with pytest.raises(ValueNotStorable, match=r"here\[1\].*itself"):
        encode(loop, place)
    deep: Any = 0
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    assert decode(encode(deep, place)) == deep
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(ValueNotStorable, match="nested deeper"):
        encode(deep, place)


@pytest.mark.parametrize("shell", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}, lambda v: {1: v}])
def test_what_is_stored_at_the_deepest_can_be_read(shell: Callable[[Any], Any]) -> None:
    deep: Any = "leaf"
    for _ in range(MAX_DEPTH - 1):
        deep = shell(deep)
    assert decode(encode(deep, place)) == deep


def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from checkpoint_plugin.codec import encode;"
        "print(encode({'s': {'a','b','c','d',1,2.5}, 'f': frozenset('xyz')}, str).hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(found) == 1


def test_stored_bytes_never_change() -> None:
    """What an older version wrote stays readable, and equal values keep their digests."""
    written = {
        "0181a1629601ffcb3ff8000000000000c40178c0c3": {"b": [1, -1, 1.5, b"x", None, True]},
        "01d80293c40103c402a161c406c70301920102": {3, "a", (1, 2)},
        "01c70f04919201c70905400000000000000000": {1: 2**70},
    }
    for text, value in written.items():
        assert encode(value, place).hex() == text
        assert alike(decode(bytes.fromhex(text)), value)
    assert (
        hashlib.sha256(b"".join(encode(value, place) for value in EDGES)).hexdigest()
        == "7a68962ae7ef44290008d529fcfe5a4b049301f88c4d166c9ed0872900e66b0d"
    )


def test_hostile_bytes_are_an_error_and_never_more() -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    good = [encode(value, place) for value in EDGES]
    for number in range(5000):
        data = bytearray(rng.choice(good))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            decode(bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.3 else data))
        except (MalformedValue, ValueNotReadable):
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}, try {number}: {bytes(data)!r} raised {error!r}") from error


EXTENDED_NESTS = """
import struct, sys, threading
from checkpoint_plugin.codec import MalformedValue, decode

tag, listed = int(sys.argv[1]), sys.argv[2] == "listed"
data = b"\\xc0"
for _ in range(100):
    inner = b"\\x91" * 1000 + data
    if listed:  # a set holds its members as bytes
        inner = b"\\x91\\xc6" + struct.pack(">I", len(inner)) + inner
    data = b"\\xc9" + struct.pack(">I", len(inner)) + bytes([tag]) + inner

def read():
    try:
        decode(b"\\x01" + data)
    except MalformedValue as error:
        print(error)

thread = threading.Thread(target=read)
thread.start()
thread.join()
"""


DEEP = "it is nested too deeply"


@pytest.mark.parametrize(
    ("tag", "listed", "told"),
    [(1, "flat", DEEP), (4, "flat", "a mapping in it has no pairs"), (2, "listed", DEEP), (3, "listed", DEEP)],
)
def test_hostile_nesting_does_not_end_the_process(tag: int, listed: str, told: str) -> None:
    """In a process of its own: an overflow of the stack would take this one along."""
    done = subprocess.run([sys.executable, "-c", EXTENDED_NESTS, str(tag), listed], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, told), done.stderr


def extension(tag: int, data: bytes) -> bytes:
    return b"\x01\xc7" + bytes([len(data), tag]) + data


@pytest.mark.parametrize(
    "data",
    [
        extension(Tag.COMPLEX, b"x"),
        extension(Tag.TIMEDELTA, b"x"),
        extension(Tag.UUID, b"x"),
        extension(Tag.DECIMAL, b"none"),
        extension(Tag.FRACTION, b"1/0"),
        extension(Tag.DATETIME, b"zone America|0||2026-01-01T00:00:00"),
        extension(Tag.DATETIME, b"zone ../../../etc/passwd|0||2026-01-01T00:00:00"),
        extension(Tag.DATETIME, b"offset|0|9,9|2026-01-01T00:00:00"),
        extension(Tag.PATH, b"os.system|x"),
        extension(Tag.TUPLE, b"\x01"),
        extension(Tag.SET, b"\x91\x91\x01"),
        extension(Tag.DICT, b"\x91\x01"),
        extension(Tag.SURROGATES, b"\xff"),
        extension(99, b"x"),
        b"\x01\xdd\xff\xff\xff\xff",
        b"\x01\x81\x01\x01",
    ],
    ids=repr,
)
def test_malformed_parts_are_an_error(data: bytes) -> None:
    with pytest.raises((MalformedValue, ValueNotReadable)):
        decode(data)


def test_a_name_in_the_bytes_imports_nothing_and_opens_nothing() -> None:
    """Where a zone is not in the system's database, `ZoneInfo` would import `tzdata.zoneinfo.<what the bytes say>`."""
    code = (
        "import sys\n"
        "from datetime import datetime\n"
        "from zoneinfo import ZoneInfo\n"
        "from checkpoint_plugin.codec import decode, encode\n"
        "from checkpoint_plugin.errors import ValueNotReadable\n"
        "encode(datetime(2026, 1, 1, tzinfo=ZoneInfo('Europe/Berlin')), str)\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, args: seen.append((event, args)) if event in ('import', 'open') else None)\n"
        "try:\n"
        "    decode(bytes.fromhex(sys.argv[1]))\n"
        "except ValueNotReadable:\n"
        "    print(seen)\n"
    )
    data = extension(Tag.DATETIME, b"zone Evil/Name|0||2026-01-01T00:00:00").hex()
    done = subprocess.run([sys.executable, "-c", code, data], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_path_that_its_text_does_not_give_back_is_refused() -> None:
    path = PureWindowsPath("./c:x")
    if sys.version_info >= (3, 12):  # its text does
        assert decode(encode(path, place)) == path
        return
    with pytest.raises(ValueNotStorable, match="means another path"):
        encode(path, place)


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


def test_a_refusal_is_told_whatever_stands_on_the_way() -> None:
    for value in ({10**5000: object()}, {(10**5000,): {object()}}, {Mute(): 1}, {Mute()}, {"k" * 10_000: object()}):
        with pytest.raises(ValueNotStorable) as caught:
            encode(value, place)
        assert len(str(caught.value)) < 500
    assert decode(encode({10**5000: {10**5000}}, place)) == {10**5000: {10**5000}}


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(MalformedValue, match="format"):
        decode(b"\x07" + encode(1, place)[1:])
    with pytest.raises(MalformedValue):
        decode(b"")


def test_the_garbage_collector_waits_for_a_large_value_and_no_longer() -> None:
    data = encode([[number] for number in range(50_000)], place)
    runs: list[str] = []

    def note(phase: str, info: dict[str, int]) -> None:
        runs.append(phase)

    gc.callbacks.append(note)
    try:
        found = decode(data)
    finally:
        gc.callbacks.remove(note)
    assert len(found) == 50_000
    assert len(runs) <= 4
    with pytest.raises(MalformedValue):
        decode(data[:-1])
    assert gc.isenabled()
    gc.disable()
    try:
        decode(data)
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("size", [65_534, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("part", ["x", "\u00e9", "\U0001f600", b"\x00"])
def test_a_long_text_and_many_bytes_are_as_messagepack_has_them(part: str | bytes, size: int) -> None:
    for count in (size, size // len(part if isinstance(part, bytes) else part.encode())):
        value = part * count
        data = encode(value, str)
        assert data == b"\x01" + ormsgpack.packb(value)
        assert decode(data) == value
        assert encode([value], str)[2:] == data[1:], "as within another value"


def test_a_long_text_with_a_lone_surrogate_goes_the_long_way() -> None:
    value = "x" * 100_000 + "\ud800"
    assert decode(encode(value, str)) == value
    assert len(encode(value, str)) > 100_000

"""Hostile payloads, read under an audit hook: run as a program, because such a hook stays until the process ends.

Prints one JSON object: how many payloads there were, what became of them, and every event that was seen.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import random
import resource
import signal
import struct
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ormsgpack

from checkpoint_plugin.codec import Codec, MalformedValue
from checkpoint_plugin.codec.tags import Tag
from checkpoint_plugin.database.location import locate
from checkpoint_plugin.errors import StoreDamaged, ValueNotReadable
from checkpoint_plugin.saving.history import RunHistory
from checkpoint_plugin.store import Store
from checkpoint_plugin.tables.definition import Definition
from hookspecs import NodeSnapshot, Snapshot
from tests.checkpoint_plugin.values import EXTRAS, PLAIN, Values, make_registry

WATCHED = ("import", "exec", "compile", "open", "marshal", "builtins.", "code.", "sys.", "os.", "shutil.", "pickle.", "ctypes.")
WATCHED_TOO = ("socket.", "subprocess.", "urllib.", "http.", "ftplib.", "webbrowser.", "tempfile.", "glob.", "mmap.", "_thread.")
LOOP = ("sys.set_asyncgen_hook_firstiter", "sys.set_asyncgen_hook_finalizer")
QUIET = ("builtins.id", "os.fspath", "sys._getframe", "sys.unraisablehook", *LOOP)
"""What Python and its event loop do by themselves: nothing is opened, imported or called by them."""
MEMORY = 768 << 20
SECONDS = 120
CODEC = Codec(make_registry())


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("a pickle was loaded",))


def place() -> str:
    return "here"


def ext(tag: int, data: bytes) -> bytes:
    return b"\x01" + b"\xc9" + struct.pack(">Ib", len(data), tag) + data


def registered(*parts: Any) -> bytes:
    return ext(Tag.REGISTERED, ormsgpack.packb(list(parts)))


def headed(tag: int, head: Any, rest: bytes, before: bytes = b"") -> bytes:
    packed = ormsgpack.packb(head)
    return ext(tag, before + struct.pack(">I", len(packed)) + packed + rest)


def crafted() -> Iterator[bytes]:
    """Payloads that somebody wrote on purpose."""
    names = [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "posix.system",
        "test.Row.__init__",
        "checkpoint_plugin.codec",
        "__main__",
    ]
    names += ["", "\0", "../../etc/passwd", "test.Stranger", "nt.system", "x" * 100_000]
    for name in names:
        yield registered(name, {"command": "touch /tmp/hostile"})
        yield registered(name)
        yield ext(Tag.PATH, f"{name}|x".encode())
        yield ext(Tag.DATETIME, f"zone {name}|0||2026-01-01T00:00:00".encode())
        yield ormsgpack.packb({"__reduce__": name, "py/object": name, "$type": name, "@class": name})
        yield b"\x01" + pickle.dumps(Bomb())
        for tag in (Tag.PANDAS, Tag.ARROW, Tag.IMAGE, Tag.ARRAY):
            yield ext(tag, ormsgpack.packb([name, [ormsgpack.packb(name)]]))
    yield from (pickle.dumps(Bomb(), protocol) for protocol in range(6))
    yield from (ext(tag, pickle.dumps(Bomb())) for tag in range(-128, 128))
    yield from (ext(tag, b"") for tag in range(-128, 128))
    rows: list[Any] = [
        {},
        {"key": 1},
        {"key": 1, "items": [], "__class__": "x"},
        {"__dict__": {}},
        [],
        None,
        1,
        {"key": 1, "items": []},
    ]
    for parts in rows:
        for name in ("Row", "Cell", "Pair", "Form", "Colour", "Right", "Money"):
            yield registered(f"test.{name}", parts)
            yield registered(f"test.{name}", parts, parts, parts, parts)
    yield from (registered("test.Colour", name) for name in ("__class__", "mro", "_missing_", "name", 1, ["RED"], {"RED": 1}))
    yield registered(
        "test.Form", {"name": 1}, ["name"], {"__class__": 1, "__pydantic_validator__": 2}, {"_note": 1, "__init__": 2}
    )
    for text in (
        "|O",
        "O",
        "|O8",
        "object",
        "f8,f8",
        "(1000000000,)f8",
        "<U1000000000",
        "<M8[ns;import os]",
        "numpy.float64",
        "<g16",
        "<f16",
    ):
        for shape in ([1], [10**9], [2**62, 2**62], [-1], [0, 2**63], ["1"], [1] * 100):
            yield headed(Tag.ARRAY, [text, shape, "C"], b"12345678")
            yield headed(Tag.ARRAY, [["fields", 8, False, [["a", text, 0]]], shape, "C"], b"12345678")
            yield headed(Tag.NUMPY_SCALAR, [text, shape, "F"], b"12345678", b"A")
    yield headed(Tag.ARRAY, [["fields", 2**31 - 1, False, [["a", "|u1", 0]]], [64], "C"], b"x" * 64)
    yield headed(Tag.ARRAY, [["array", "<f8", [2**31, 2**31]], [1], "C"], b"x" * 64)
    nest: Any = "<f8"
    for _ in range(200):
        nest = ["array", nest, [1]]
    yield headed(Tag.ARRAY, [nest, [1], "C"], b"x" * 8)
    for kind in ("frame", "series", "index", "moment", "missing", "eval"):
        for part in (
            [],
            None,
            ["arrow", 1],
            ["categories", 1, 2, 3, 4],
            ["periods", [1], "import os"],
            ["range", [None], 0, 2**62, 1],
        ):
            yield ext(Tag.PANDAS, ormsgpack.packb([kind, [ormsgpack.packb(item) for item in part or ()]]))
            yield ext(Tag.PANDAS, ormsgpack.packb([kind, *[[ormsgpack.packb(part)] * 3] * 2]))
    for size in (0xFFFFFFFF, 0x7FFFFFFF, 10**8):
        yield from (b"\x01" + bytes([first]) + struct.pack(">I", size) for first in (0xDD, 0xDF, 0xC6, 0xDB, 0xC9))
        yield from (ext(tag, b"\xdd" + struct.pack(">I", size)) for tag in range(1, 23))
    for shell in (b"\x91", b"\x81\xa1k"):
        yield from (b"\x01" + shell * depth + b"\xc0" for depth in (99, 101, 1_000, 1_100, 100_000))
    for tag in (Tag.TUPLE, Tag.DICT, Tag.SET, Tag.FROZENSET, Tag.REGISTERED, Tag.PANDAS, Tag.IMAGE):
        data = b"\xc0"
        for _ in range(300):
            data = b"\x91" + b"\xc9" + struct.pack(">Ib", len(data), tag) + data
        yield b"\x01" + data
    yield ext(Tag.FRACTION, b"f" * 500_000 + b"/" + b"e" * 500_001)
    yield ext(Tag.DECIMAL, b"1E+999999999999999999")
    yield ext(Tag.DECIMAL, b"9" * 1_000_000)
    yield from (ext(tag, b"\xff" * 10_000) for tag in range(1, 23))
    if "pyarrow" in EXTRAS:
        yield from _arrow()


def _arrow() -> Iterator[bytes]:
    """Types of Arrow that older versions unpickled, and metadata that pandas would follow."""
    import pyarrow

    for name in ("arrow.py_extension_type", "arrow.opaque", "arrow.json", "pandas.period", "os.system"):
        metadata = {"ARROW:extension:name": name, "ARROW:extension:metadata": pickle.dumps(Bomb())}
        schema = pyarrow.schema(
            [pyarrow.field("a", pyarrow.string(), metadata=metadata)], metadata={"pandas": b"__import__('os')"}
        )
        batch = pyarrow.RecordBatch.from_arrays([pyarrow.array(["x"])], schema=schema)
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, schema) as writer:
            writer.write(batch)
        yield ext(Tag.ARROW, b"T" + sink.getvalue().to_pybytes())


def damaged(seed: int, count: int) -> Iterator[bytes]:
    """Good payloads with flipped bits, cut short, or joined."""
    rng = random.Random(seed)
    values = Values(seed)
    good = [CODEC.encode(value, place) for value in PLAIN] + [CODEC.encode(values.make(), place) for _ in range(count)]
    for data in good:
        flipped = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        yield bytes(flipped)
        yield data[: rng.randrange(len(data))]
        yield data + rng.choice(good)


def read(data: bytes) -> str:
    try:
        CODEC.decode(data)
    except (MalformedValue, ValueNotReadable) as error:
        return type(error).__name__
    return "a value"


class Forger(Codec):
    """Writes what it is given as it is, so that a store holds it with all its digests right."""

    def encode(self, value: Any, place: Any) -> bytes:
        return bytes(value)


async def read_rows(folder: Path, payloads: list[bytes], seen: list[str]) -> Counter[str]:
    """What a restore makes of each payload in a store."""
    url = f"sqlite:///{folder / 'c.db'}"
    forger = Store(locate(url), create=True, codec=Forger())
    for number, data in enumerate(payloads):
        await forger.insert_job(f"r{number}", Definition(b"", "{}", "{}"))
        node = NodeSnapshot("n", "completed", state=data, collected=[data])
        await forger.save(RunHistory(f"r{number}", 1, 1), Snapshot(f"r{number}", 1, "running", (node,), datetime.now(UTC)), "x")
    await forger.close()
    store = Store(locate(url), create=False, codec=CODEC)
    await store.jobs()
    found: Counter[str] = Counter()
    seen.clear()
    for number in range(len(payloads)):
        try:
            await store.restore(RunHistory(f"r{number}", 1, 1), None)
            found["a value"] += 1
        except (StoreDamaged, ValueNotReadable) as error:
            found[type(error).__name__] += 1
    events = list(seen)
    await store.close()
    seen[:] = events
    return found


def main() -> None:
    seed, folder = int(sys.argv[1]), Path(sys.argv[2])
    warnings.simplefilter("error")
    payloads = [*crafted(), *damaged(seed, 100)]
    for value in PLAIN:  # what is imported at the first use of a kind is imported now
        read(CODEC.encode(value, place))
    values = Values(seed + 1)
    for _ in range(200):
        read(CODEC.encode(values.make(), place))
    seen: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(WATCHED + WATCHED_TOO) and event not in QUIET:
            seen.append(f"{event} {arguments!r}"[:200])

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.alarm(SECONDS)  # ends the process: the test then fails
    sys.addaudithook(watch)
    read_alone = Counter(read(data) for data in payloads)
    events = list(seen)
    in_rows = asyncio.run(
        read_rows(folder, random.Random(seed).sample([data for data in payloads if len(data) < 100_000], 400), seen)
    )
    events += seen
    print(json.dumps({"payloads": len(payloads), "read": read_alone, "rows": in_rows, "events": events[:20]}))


if __name__ == "__main__":
    main()

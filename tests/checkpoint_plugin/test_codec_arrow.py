"""Tables of Arrow come back equal, through the stream format of its IPC, or are refused."""

from __future__ import annotations

import random
from typing import Any

import ormsgpack
import pytest

from checkpoint_plugin.codec import MalformedValue, decode, encode
from checkpoint_plugin.codec.tags import Tag
from checkpoint_plugin.errors import ValueNotReadable, ValueNotStorable

pyarrow = pytest.importorskip("pyarrow")


def place() -> str:
    return "outputs"


def table() -> Any:
    columns = {
        "integers": [1, None],
        "text": ["x", "y"],
        "floats": [float("nan"), -0.0],
        "lists": [[1], None],
        "words": pyarrow.array(["a", "a"]).dictionary_encode(),
        "records": [{"a": 1}, {"a": None}],
    }
    return pyarrow.table(columns, metadata={"k": "v"})


VALUES: dict[str, Any] = {
    "table": table(),
    "slice": table().slice(1),
    "no rows": table().slice(0, 0),
    "no columns": pyarrow.table({}),
    "chunks": pyarrow.concat_tables([table(), table()]),
    "batch": table().to_batches()[0],
    "empty batch": pyarrow.RecordBatch.from_pylist([], schema=table().schema),
}


@pytest.mark.parametrize("name", VALUES)
def test_tables_come_back(name: str) -> None:
    value = VALUES[name]
    data = encode([value], place)
    back = decode(data)[0]
    assert type(back) is type(value)
    assert back.schema.equals(value.schema, check_metadata=True)
    assert repr(back.to_pylist()) == repr(value.to_pylist())
    assert encode([back], place) == data


Unregistered = type(
    "Unregistered",
    (pyarrow.ExtensionType,),
    {
        "__init__": lambda self: pyarrow.ExtensionType.__init__(self, pyarrow.int64(), "tests.unregistered"),
        "__arrow_ext_serialize__": lambda self: b"",
    },
)
"""Of which Arrow reads what it is stored in."""


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pyarrow.ExtensionArray.from_storage(Unregistered(), pyarrow.array([1])), "does not come back equal"),
        (
            pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, *map(pyarrow.py_buffer, (b"\0\0\0\0\1\0\0\0", b"\xff"))]),
            "does not read what it wrote",
        ),
    ],
    ids=["extension", "text"],
)
def test_what_would_not_come_back_is_refused(column: Any, words: str) -> None:
    with pytest.raises(ValueNotStorable, match=rf"^outputs\['k'\] cannot be stored: .*{words}"):
        encode({"k": pyarrow.table({"a": column})}, place)


def test_other_classes_are_refused() -> None:
    with pytest.raises(ValueNotStorable, match="Table and RecordBatch can be stored"):
        encode(pyarrow.array([1]), place)


@pytest.mark.parametrize("version", ["V4", "V5"])
@pytest.mark.parametrize("how", ["zstd", "lz4"])
@pytest.mark.parametrize("whole", [True, False], ids=["batch", "dictionary"])
def test_tables_that_somebody_compressed_are_not_unpacked(how: str, whole: bool, version: str) -> None:
    column = pyarrow.array(["x" * 1_000_000])
    found = pyarrow.table({"a": column if whole else column.dictionary_encode()})
    with pytest.raises(MalformedValue, match="compressed"):
        decode(written(found, version, compression=how))


def written(found: Any, version: str, **options: Any) -> bytes:
    """A table as a value, in a version of Arrow's metadata."""
    sink = pyarrow.BufferOutputStream()
    chosen = pyarrow.ipc.IpcWriteOptions(metadata_version=getattr(pyarrow.ipc.MetadataVersion, version), **options)
    with pyarrow.ipc.new_stream(sink, found.schema, options=chosen) as writer:
        writer.write(found)
    return b"\x01" + ormsgpack.packb(ormsgpack.Ext(Tag.ARROW, b"T" + sink.getvalue().to_pybytes()))


def test_messages_whose_metadata_may_name_a_compression_are_not_read() -> None:
    """As version 0.17 of Arrow wrote them: their batches look as if nothing was compressed."""
    found = pyarrow.table({"a": [1]})
    sink = pyarrow.BufferOutputStream()
    options = pyarrow.ipc.IpcWriteOptions(metadata_version=pyarrow.ipc.MetadataVersion.V4)
    with pyarrow.ipc.new_stream(sink, found.schema, options=options) as writer:
        writer.write_batch(found.to_batches()[0], custom_metadata={"ARROW:experimental_compression": "zstd"})
    data = b"\x01" + ormsgpack.packb(ormsgpack.Ext(Tag.ARROW, b"T" + sink.getvalue().to_pybytes()))
    with pytest.raises(MalformedValue, match="compressed"):
        decode(data)


@pytest.mark.parametrize("legacy", [True, False])
def test_tables_are_stored_and_read_where_arrow_writes_for_older_programs(monkeypatch: pytest.MonkeyPatch, legacy: bool) -> None:
    """Its variables are set for Spark 2, in the environment of the whole process."""
    assert decode(written(table().drop_columns("floats"), "V4", use_legacy_format=legacy)).equals(table().drop_columns("floats"))
    monkeypatch.setenv("ARROW_PRE_1_0_METADATA_VERSION", "1")
    monkeypatch.setenv("ARROW_PRE_0_15_IPC_FORMAT", str(int(legacy)))
    assert decode(encode([table().drop_columns("floats")], place))[0].equals(table().drop_columns("floats"))


def test_hostile_tables_are_an_error() -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    good = [encode(value, place) for value in VALUES.values()]
    for number in range(3000):
        data = bytearray(rng.choice(good))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            decode(bytes(data))
        except (MalformedValue, ValueNotReadable):
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}, try {number}: {bytes(data)!r} raised {error!r}") from error

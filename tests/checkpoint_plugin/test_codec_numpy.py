"""Arrays and scalars of numpy come back with dtype, shape, order and byte order, or are refused."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from checkpoint_plugin.codec import MalformedValue, decode, encode
from checkpoint_plugin.codec.tags import Tag
from checkpoint_plugin.errors import ValueNotReadable, ValueNotStorable

numpy = pytest.importorskip("numpy")

ALIGNED = numpy.dtype([("a", "i1"), ("b", ">f8", (2,)), ("c", [("x", "U3"), ("y", "M8[ns]")])], align=True)


def records() -> Any:
    made = numpy.zeros((3,), ALIGNED)
    made["c"]["x"] = "abc"
    made["b"] = 1.5
    return made


def quietly(make: Callable[..., Any], *arguments: Any) -> Any:
    """What has no unit, which numpy 2.5 does not like any more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return make(*arguments)


def cube() -> Any:
    return numpy.arange(24).reshape(2, 3, 4)


ARRAYS: dict[str, Any] = {
    "c": cube(),
    "transposed": cube().T,
    "fortran": numpy.asfortranarray(cube()),
    "strided": cube()[::2, ::-1],
    "big-endian": cube().astype(">i4"),
    "no dimensions": numpy.array(5),
    "no elements": numpy.array([]),
    "no rows": numpy.zeros((0, 3)),
    "text": numpy.array(["a", "bcd"]),
    "bytes": numpy.array([b"x\0y"]),
    "dates": numpy.array(["2020-02-03", "NaT"], "M8[D]"),
    "dates without a unit": quietly(numpy.array, ["NaT"], "M8"),
    "durations": numpy.array([1, 2], "m8[25s]"),
    "half": numpy.array([1.5, numpy.nan, -0.0, numpy.inf], "f2"),
    "nan with a payload": numpy.array([0x7FF8000000000123, 0xFFF0000000000001], "u8").view("f8"),
    "complex": numpy.array([1j, complex(numpy.nan, 1)]),
    "bool": numpy.array([True, False]),
    "records": records(),
    "no records": records()[:0],
    "some fields": records()[["a", "c"]],
    "records in fortran order": numpy.zeros((2, 2), ALIGNED, order="F"),
    "titles": numpy.zeros(2, [(("title", "name"), "i4")]),
    "overlapping": numpy.zeros(2, {"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 2]}),
    "void": numpy.array([b"abc"], "V3"),
    "long long": numpy.array([1, 2], "q"),
    "unsigned, big-endian": numpy.array([1, 2], ">Q"),
    "broadcast": numpy.broadcast_to(numpy.float32(1), (3, 4)),
    "read-only": numpy.frombuffer(b"\1\2\3\4", "u2"),
}
SCALARS: list[Any] = [
    numpy.float64(1.5),
    numpy.float32("nan"),
    numpy.float64(-0.0),
    numpy.int8(3),
    numpy.uint64(2**64 - 1),
    numpy.bool_(True),
    numpy.str_("a\0"),
    numpy.str_("\ud800"),
    numpy.bytes_(b"a\0"),
    numpy.datetime64("2020-01-01T00", "h"),
    quietly(numpy.datetime64, "NaT"),
    quietly(numpy.timedelta64, 4),
    numpy.complex64(1j),
    numpy.longlong(4),
    numpy.intc(4),
    numpy.float16(2),
    records()[0],
    numpy.void(b"abc\0"),
]


def place() -> str:
    return "outputs"


def content(array: Any) -> list[bytes]:
    """The elements field by field: padding is no content."""
    if array.dtype.names is None:
        return [array.tobytes()]
    return [part for name in array.dtype.names for part in content(array[name])]


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back(name: str) -> None:
    array = ARRAYS[name]
    data = encode({"k": (array,)}, place)
    back = decode(data)["k"][0]
    assert type(back) is numpy.ndarray
    assert (back.dtype, back.dtype.str, back.dtype.isalignedstruct) == (array.dtype, array.dtype.str, array.dtype.isalignedstruct)
    assert back.dtype.char == array.dtype.char
    assert back.shape == array.shape
    assert content(back) == content(array)
    if array.flags.forc:
        assert (back.flags.c_contiguous, back.flags.f_contiguous) == (array.flags.c_contiguous, array.flags.f_contiguous)
    assert back.flags.writeable
    assert encode({"k": (back,)}, place) == data


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda scalar: type(scalar).__name__)
def test_scalars_come_back(scalar: Any) -> None:
    back = decode(encode([scalar], place))[0]
    assert type(back) is type(scalar)
    assert back.dtype == scalar.dtype
    assert back == scalar or (back != back and scalar != scalar)
    assert bytes(back.data) == bytes(scalar.data) if scalar.dtype.kind == "f" else True


def padded() -> Any:
    return numpy.zeros(9, {"names": ["a"], "formats": ["i1"], "offsets": [0], "itemsize": 1000})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (numpy.array([object()]), "holds Python objects"),
        (numpy.zeros(2, [("a", "O")]), "holds Python objects"),
        (numpy.longdouble(1), "not the same on every platform"),
        (numpy.zeros(2, "g"), "not the same on every platform"),
        (numpy.ma.array([1]), "convert it with numpy.asarray"),
        (numpy.rec.array([(1, 2)]), "convert it with numpy.asarray"),
        (numpy.rec.array([(1, 2)]).view(numpy.ndarray), "would come back as"),
        (numpy.zeros(2, numpy.dtype("f8", metadata={"a": 1})), "metadata"),
        (padded(), "mostly padding"),
        (numpy.zeros(3, []), "elements without any content"),
        (numpy.zeros(3, [("a", "i4"), ("b", "i4", (0,))]), "elements without any content"),
    ],
    ids=[
        *("object", "object field", "longdouble", "longdoubles", "masked", "recarray", "records", "metadata", "padded"),
        *("no fields", "no size"),
    ],
)
def test_what_would_not_come_back_exactly_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ValueNotStorable, match=words) as caught:
        encode({"k": [value]}, place)
    assert str(caught.value).startswith("outputs['k'][0] cannot be stored: ")


def test_what_lies_between_fields_is_not_stored() -> None:
    one, other = numpy.zeros((2, 3), ALIGNED)
    other.view("u1").reshape(3, -1)[:, 1:8] = 0xFF
    assert (one == other).all()
    assert encode(one, place) == encode(other, place)


def test_stored_bytes_never_change() -> None:
    written = encode(numpy.array([1, 2], ">i4"), place)
    assert written.hex() == "01c7151200000009" + "93a33e69349102a143" + "0000000100000002"


def test_hostile_arrays_are_an_error_and_take_no_memory() -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    good = [encode(value, place) for value in [*ARRAYS.values(), *SCALARS]]
    for number in range(4000):
        data = bytearray(rng.choice(good))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            decode(bytes(data))
        except (MalformedValue, ValueNotReadable):
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}, try {number}: {bytes(data)!r} raised {error!r}") from error


def test_the_library_is_imported_only_where_it_is_needed() -> None:
    code = (
        "import sys\n"
        "from checkpoint_plugin.codec import decode, encode\n"
        "decode(encode([1, (2,)], str))\n"
        "class Liar: pass\n"
        "Liar.__module__ = 'numpy'\n"
        "try: encode(Liar(), str)\n"
        "except TypeError: pass\n"
        "assert 'numpy' not in sys.modules\n"
        "sys.modules['numpy'] = None\n"
        f"decode(bytes.fromhex('{encode(numpy.int8(1), place).hex()}'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "it needs the library 'numpy', which is not installed" in done.stderr.splitlines()[-1]
    assert "pip install 'workflow-checkpoint[numpy]'" in done.stderr.splitlines()[-1]


def test_tags_are_those_of_the_format() -> None:
    assert (Tag.ARRAY, Tag.NUMPY_SCALAR) == (18, 19)

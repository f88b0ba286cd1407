"""Frames, series, indexes and moments of pandas come back equal in every dtype, or are refused."""

from __future__ import annotations

import random
from datetime import date
from decimal import Decimal
from typing import Any

import ormsgpack
import pytest

from checkpoint_plugin.codec import MalformedValue, decode, encode
from checkpoint_plugin.codec.tags import Tag
from checkpoint_plugin.errors import ValueNotReadable, ValueNotStorable

pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")
numpy = pytest.importorskip("numpy")


def place() -> str:
    return "outputs"


def again(value: Any) -> Any:
    data = encode([value], place)
    back = decode(data)[0]
    assert encode([back], place) == data
    assert type(back) is type(value)
    return back


COLUMNS: dict[str, Any] = {
    "integers": numpy.arange(3),
    "small": numpy.arange(3, dtype="i1"),
    "floats": [1.5, numpy.nan, -0.0],
    "complex": numpy.array([1j, 2, 3]),
    "bools": [True, False, True],
    "text": ["a", None, "c"],
    "string": pandas.array(["a", None, "c"], dtype="string"),
    "python string": pandas.array(["a", None, "c"], dtype=pandas.StringDtype("python")),
    "objects": pandas.Series([1, "x", None], dtype=object),
    "missing": pandas.Series([None, numpy.nan, pandas.NA, pandas.NaT][:3], dtype=object),
    "containers": pandas.Series([[1], (2,), {3: 4}], dtype=object),
    "decimals": [Decimal("1.10")] * 3,
    "dates": [date(2020, 1, 1)] * 3,
    "moments": pandas.date_range("2020", periods=3),
    "seconds": pandas.date_range("2020", periods=3, unit="s"),
    "moments in a zone": pandas.date_range("2020-10-25", periods=3, freq="h", tz="Europe/Berlin"),
    "moments in utc": pandas.date_range("2020", periods=3, tz="UTC"),
    "durations": pandas.timedelta_range("1D", periods=3),
    "categories": pandas.Categorical(["a", None, "a"], categories=["b", "a"], ordered=True),
    "categories of numbers": pandas.Categorical([1, 2, 1]),
    "Int64": pandas.array([1, None, 3], dtype="Int64"),
    "UInt8": pandas.array([1, None, 3], dtype="UInt8"),
    "Float32": pandas.array([1, None, 3], dtype="Float32"),
    "boolean": pandas.array([True, None, False], dtype="boolean"),
    "months": pandas.period_range("2020", periods=3, freq="M"),
    "quarters": pandas.PeriodIndex(["2020Q1", "NaT", "2020Q3"], freq="Q-NOV"),
    "intervals": pandas.interval_range(0, 3),
    "arrow integers": pandas.array([1, None, 3], dtype="int64[pyarrow]"),
    "arrow lists": pandas.array([[1], None, [3]], dtype=pandas.ArrowDtype(pyarrow.list_(pyarrow.int64()))),
}
FRAME = pandas.DataFrame(COLUMNS)


@pytest.mark.parametrize("name", COLUMNS)
def test_every_dtype_comes_back(name: str) -> None:
    series = FRAME[name]
    pandas.testing.assert_series_equal(again(series), series, check_exact=True)
    pandas.testing.assert_frame_equal(again(FRAME[[name]]), FRAME[[name]], check_exact=True)
    indexed = FRAME[["integers"]].set_index(series)
    if name not in ("containers",):
        pandas.testing.assert_frame_equal(again(indexed), indexed, check_exact=True)


def test_objects_keep_their_types() -> None:
    assert [type(value) for value in again(FRAME["missing"])] == [type(value) for value in FRAME["missing"]]
    assert again(FRAME["containers"]).tolist() == [[1], (2,), {3: 4}]


FRAMES: dict[str, Any] = {
    "all": FRAME,
    "empty": pandas.DataFrame(),
    "no columns": pandas.DataFrame(index=[1, 2]),
    "no rows": pandas.DataFrame(columns=["a"]),
    "columns of one name": pandas.DataFrame([[1, "x"]], columns=["a", "a"]),
    "labels": pandas.DataFrame([[1, 2, 3]], columns=pandas.Index([1, ("a", 2), None], dtype=object)),
    "named": pandas.DataFrame({"a": [1]}).rename_axis(columns="names", index=[("t", 1)]),
    "several levels": FRAME.pivot_table(index="integers", columns=["bools", "small"], values=["floats"]),
    "unsorted levels": pandas.DataFrame(
        {"a": [1, 2]}, index=pandas.MultiIndex.from_tuples([("b", 1), ("a", None)], names=["k", None])
    ),
    "a view": FRAME[["integers", "floats"]].iloc[::-2],
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_come_back(name: str) -> None:
    pandas.testing.assert_frame_equal(again(FRAMES[name]), FRAMES[name], check_exact=True, check_freq=True)
    assert again(FRAMES[name]).index.identical(FRAMES[name].index)


def test_what_stands_beside_the_data_comes_back() -> None:
    frame = pandas.DataFrame({"a": [1]})
    frame.attrs = {"unit": ("m", 2)}
    assert again(frame).attrs == {"unit": ("m", 2)}
    assert again(frame.set_flags(allows_duplicate_labels=False)).flags.allows_duplicate_labels is False
    assert again(frame["a"].rename(("a", 1))).name == ("a", 1)


@pytest.mark.parametrize(
    "index",
    [
        pandas.RangeIndex(1, 10, 2, name="r"),
        pandas.Index([1, 2], name=("a", 1)),
        pandas.Index([]),
        pandas.Index(["a", "b"]),
        pandas.Index(["a", 1], dtype=object),
        pandas.date_range("2020", periods=3, freq="D"),
        pandas.date_range("2020", periods=3, freq="2h", tz="Europe/Berlin"),
        pandas.timedelta_range("1D", periods=3),
        pandas.CategoricalIndex(["a", "b"]),
    ],
    ids=lambda index: type(index).__name__,
)
def test_indexes_come_back(index: Any) -> None:
    pandas.testing.assert_index_equal(again(index), index, exact=True)
    assert getattr(again(index), "freq", None) == getattr(index, "freq", None)


@pytest.mark.parametrize(
    "moment",
    [
        pandas.Timestamp("2020-01-01"),
        pandas.Timestamp(1, unit="ns"),
        pandas.Timestamp("2020-10-25 00:30", tz="UTC").tz_convert("Europe/Berlin"),
        pandas.Timestamp("2020-10-25 01:30", tz="UTC").tz_convert("Europe/Berlin"),
        pandas.Timestamp("2020-01-01T00:00:00.123456789+03:00"),
        pandas.Timedelta(5),
        pandas.Timedelta("1D"),
    ],
    ids=str,
)
def test_moments_come_back(moment: Any) -> None:
    back = again(moment)
    assert (back, back.unit, str(back)) == (moment, moment.unit, str(moment))
    assert getattr(back, "fold", 0) == getattr(moment, "fold", 0)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
@pytest.mark.parametrize("year", ["-0005", "12000"])
def test_moments_in_years_that_a_datetime_lacks_come_back(year: str, zone: str) -> None:
    moment = pandas.Timestamp(numpy.datetime64(f"{year}-01-01", "s")).tz_localize(zone)
    back = again(moment)
    assert (back.to_numpy(), back.unit, back.tzinfo) == (moment.to_numpy(), moment.unit, moment.tzinfo)


def test_what_is_missing_comes_back_as_itself() -> None:
    assert again(pandas.NaT) is pandas.NaT
    assert again(pandas.NA) is pandas.NA


WORKDAYS = pandas.bdate_range("2020", periods=2, freq="C", weekmask="Mon Tue")
"""No text tells which days they are."""
Child = type("Child", (pandas.DataFrame,), {})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (pandas.Series(pandas.arrays.SparseArray([1, 0])), "its dtype Sparse"),
        (Child({"a": [1]}), "not one that can be stored"),
        (pandas.Period("2020"), "convert it to one of them"),
        (pandas.array([1]), "convert it to one of them"),
        (pandas.DataFrame({"a": pandas.Series([numpy.longdouble(1)])}), "not the same on every platform"),
        (WORKDAYS, "does not come back equal"),
        (pandas.Series([1, 2], index=WORKDAYS), "does not come back equal"),
        (pandas.DataFrame({"a": [1, 2]}, index=WORKDAYS), "does not come back equal"),
        (pandas.DataFrame([[1, 2]], columns=WORKDAYS), "does not come back equal"),
        (pandas.Series([1, 2], index=pandas.date_range("2020", periods=2, freq=pandas.DateOffset(days=2))), "not come back"),
    ],
    ids=["sparse", "subclass", "period", "array", "longdouble", "index", "series", "rows", "columns", "offset"],
)
def test_what_would_not_come_back_exactly_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ValueNotStorable, match=words) as caught:
        encode({"k": [value]}, place)
    assert str(caught.value).startswith("outputs['k'][0]")


def test_the_path_goes_through_the_column() -> None:
    frame = pandas.DataFrame({"a{}": [1, {"x": [object()]}]})
    with pytest.raises(ValueNotStorable, match=r"^outputs\[0\]\['a\{\}'\]\[1\]\['x'\]\[0\] cannot"):
        encode([frame], place)


def test_equal_frames_have_equal_bytes() -> None:
    """Whatever the way they were made: in blocks, in pieces, as a view."""
    whole = pandas.DataFrame({"a": [1, 2], "b": [3, 4]})
    grown = pandas.DataFrame({"a": [1, 2]})
    grown["b"] = [3, 4]
    assert encode(whole, place) == encode(grown, place)
    assert encode(whole, place) == encode(pandas.concat([whole, whole]).iloc[:2].reset_index(drop=True), place)


@pytest.mark.parametrize("length", [65, 100_000])
@pytest.mark.parametrize("kind", ["DatetimeIndex", "PeriodIndex"])
def test_a_long_frequency_takes_no_time(kind: str, length: int) -> None:
    number = numpy.zeros(1, "M8[ns]" if kind == "DatetimeIndex" else "i8")
    frequency = "1" * length + "!"
    column, own = (["numpy", number], frequency) if kind == "DatetimeIndex" else (["periods", number, frequency], None)
    parts = [encode(part, place)[1:] for part in (kind, [None], column, own)]
    data = b"\x01" + ormsgpack.packb(ormsgpack.Ext(Tag.PANDAS, ormsgpack.packb(["index", parts])))
    with pytest.raises(MalformedValue, match="a frequency is none"):
        decode(data)


def test_hostile_frames_are_an_error() -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    good = [encode(value, place) for value in [FRAME, *(FRAME[name] for name in COLUMNS), FRAMES["several levels"]]]
    for number in range(1500):
        data = bytearray(rng.choice(good))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            decode(bytes(data))
        except (MalformedValue, ValueNotReadable):
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}, try {number}: {bytes(data)!r} raised {error!r}") from error

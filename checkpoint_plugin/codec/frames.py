"""DataFrames, Series and indexes of pandas: their labels, and their columns as `columns` takes them apart."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import repeat
from typing import Any, Final

import numpy
import ormsgpack
import pandas

from checkpoint_plugin.codec.columns import check_frequency, make_column, take_column
from checkpoint_plugin.codec.foreign import Foreign, Pack, Unpack
from checkpoint_plugin.codec.tags import Tag

__all__ = ["find_frame", "read_frame"]

INDEXES: Final[dict[str, Any]] = {
    "Index": pandas.Index,
    "DatetimeIndex": pandas.DatetimeIndex,
    "TimedeltaIndex": pandas.TimedeltaIndex,
    "PeriodIndex": pandas.PeriodIndex,
    "IntervalIndex": pandas.IntervalIndex,
    "CategoricalIndex": pandas.CategoricalIndex,
}


def find_frame(kind: type) -> Foreign | None:
    """How values are stored; `None` for other classes, such as subclasses of the DataFrame."""
    if kind in (pandas.RangeIndex, pandas.MultiIndex) or kind in INDEXES.values():
        return _encode_index
    if kind in (pandas.Timestamp, pandas.Timedelta) or kind in (type(pandas.NaT), type(pandas.NA)):
        return _encode_moment
    return {pandas.DataFrame: _encode_frame, pandas.Series: _encode_series}.get(kind)


def read_frame(data: bytes, unpack: Unpack) -> Any:
    """The value of bytes.

    Raises:
        ValueError: they are not those of one.
    """
    kind, *packed = ormsgpack.unpackb(data)
    return _made(kind, *([unpack(part) for part in parts] for parts in packed))


def _packed(step: str, parts: list[Any], pack: Pack) -> list[bytes]:
    """Each part by itself, so that the path to a value leads through the column, not through our list of its parts."""
    return [pack(step, part) for part in parts]


def _made(kind: str, *parts: Any) -> Any:
    try:
        return MAKERS[kind](*parts)
    except Exception as error:  # pandas raises errors of many classes for parts that do not belong together
        raise ValueError(f"a value of pandas is not what was written ({type(error).__name__}: {error})") from error


def _made_again(kind: str, *parts: Any) -> Any:
    """What will come back: made before anything is stored, to be compared."""
    try:
        return _made(kind, *parts)
    except ValueError as error:
        raise TypeError(f"it would not come back: {error}. Convert it to another type.") from error


def _encode_frame(value: Any, pack: Pack) -> tuple[Tag, bytes]:
    columns = [take_column(value.iloc[:, place].array) for place in range(value.shape[1])]
    index, labels = _take_index(value.index), _take_index(value.columns)
    about = _about(value)
    again = _made_again("frame", [about, index, labels], *columns)
    if not (
        again.index.identical(value.index)
        and again.columns.identical(value.columns)
        and list(again.dtypes) == list(value.dtypes)
        and again.equals(value)
    ):
        raise TypeError("it does not come back equal. Convert its columns to other types.")
    steps = [f"[{_shown(label)}]" for label in value.columns]
    parts = [
        [pack(".attrs", about), pack(".index", index), pack(".columns", labels)],
        *map(_packed, steps, columns, repeat(pack)),
    ]
    return Tag.PANDAS, ormsgpack.packb(["frame", *parts])


def _make_frame(frame_parts: Any, *columns: Any) -> Any:
    about, index, labels = frame_parts
    rows, names = _make_index(index), _make_index(labels)
    if len(columns) != len(names):
        raise ValueError("a column is missing")
    series = {place: _series(make_column(column), rows) for place, column in enumerate(columns)}
    frame = pandas.DataFrame(series, index=rows, copy=False)
    frame.columns = names
    return _finish(frame, about)


def _encode_series(value: Any, pack: Pack) -> tuple[Tag, bytes]:
    column, index, about = take_column(value.array), _take_index(value.index), _about(value)
    again = _made_again("series", [about, index, value.name], column)
    if not (again.index.identical(value.index) and again.dtype == value.dtype and again.equals(value)):
        raise TypeError("it does not come back equal. Convert it to another type.")
    parts = [[pack(".attrs", about), pack(".index", index), pack(".name", value.name)], _packed("", column, pack)]
    return Tag.PANDAS, ormsgpack.packb(["series", *parts])


def _make_series(series_parts: Any, column: Any) -> Any:
    about, index, name = series_parts
    series = _series(make_column(column), _make_index(index))
    series.name = name
    return _finish(series, about)


def _series(column: Any, index: Any) -> Any:
    if len(column) != len(index):
        raise ValueError("a column has not as many values as the index")
    return pandas.Series(column, index=index, dtype=column.dtype, copy=False)


def _encode_index(value: Any, pack: Pack) -> tuple[Tag, bytes]:
    parts = _take_index(value)
    again = _made_again("index", parts)
    if type(again) is not type(value) or not again.identical(value):
        raise TypeError("it does not come back equal. Convert it to another type.")
    return Tag.PANDAS, ormsgpack.packb(["index", _packed("", parts, pack)])


def _take_index(value: Any) -> list[Any]:
    """An index as plain values."""
    names = list(value.names)
    if type(value) is pandas.RangeIndex:
        return ["range", names, value.start, value.stop, value.step]
    if type(value) is pandas.MultiIndex:
        codes = [numpy.asarray(level, "int64") for level in value.codes]
        return ["levels", names, [_take_index(level) for level in value.levels], codes]
    name = type(value).__name__
    if INDEXES.get(name) is type(value):
        frequency = value.freqstr if name in ("DatetimeIndex", "TimedeltaIndex") else None
        return [name, names, take_column(value.array), frequency]
    raise TypeError(f"its index {type(value).__name__} cannot be stored. Convert it: reset_index, or pandas.Index(…).")


def _make_index(parts: Any) -> Any:
    kind, names, *rest = parts
    if kind == "range":
        index: Any = pandas.RangeIndex(*rest)
    elif kind == "levels":
        levels, codes = rest
        return pandas.MultiIndex([_make_index(level) for level in levels], codes, names=names)
    else:
        column, frequency = rest
        made = make_column(column)
        index = pandas.Index(made, dtype=made.dtype, copy=False)
        if frequency is not None:
            index = INDEXES[kind](index, freq=check_frequency(frequency))
        if type(index) is not INDEXES[kind]:
            raise ValueError("an index is of another kind")
    index.names = names
    return index


def _encode_moment(value: Any, pack: Pack) -> tuple[Tag, bytes]:
    """A scalar: its number with its unit, and a moment's time zone as that of a datetime."""
    if value is pandas.NaT or value is pandas.NA:
        return Tag.PANDAS, ormsgpack.packb(["missing", [pack("", "NaT" if value is pandas.NaT else "NA")]])
    zone = None
    if isinstance(value, pandas.Timestamp) and value.tzinfo is not None:
        clock = value.hour, value.minute, value.second, value.microsecond
        zone = datetime(2000, 1, 1, *clock, tzinfo=value.tzinfo)  # its own year may be one that a datetime has not
    parts = [value.to_numpy(), zone]
    again = _made_again("moment", parts)
    if type(again) is not type(value) or again != value or again.unit != value.unit:
        raise TypeError("it does not come back equal. Convert it to a datetime or a timedelta.")
    return Tag.PANDAS, ormsgpack.packb(["moment", _packed("", parts, pack)])


def _make_moment(parts: Any) -> Any:
    number, zone = parts
    if isinstance(number, numpy.timedelta64):
        return pandas.Timedelta(number)
    if not isinstance(number, numpy.datetime64):
        raise ValueError("a moment is none")
    moment = pandas.Timestamp(number)
    return moment if zone is None else moment.tz_localize("UTC").tz_convert(zone.tzinfo)


def _make_missing(parts: Any) -> Any:
    (name,) = parts
    return {"NaT": pandas.NaT, "NA": pandas.NA}[name]


def _about(value: Any) -> list[Any]:
    """What pandas keeps beside the data."""
    return [value.attrs, value.flags.allows_duplicate_labels]


def _finish(value: Any, about: Any) -> Any:
    attrs, allows = about
    value.attrs = attrs
    return value if allows else value.set_flags(allows_duplicate_labels=False)


def _shown(label: Any) -> str:
    """A column's label for the path to a value; braces would be taken for a place to fill in."""
    return repr(label)[:80].replace("{", "{{").replace("}", "}}")


MAKERS: Final[dict[str, Callable[..., Any]]] = {
    "frame": _make_frame,
    "series": _make_series,
    "index": _make_index,
    "moment": _make_moment,
    "missing": _make_missing,
}

"""The columns of pandas as plain values, arrays of numpy and tables of Arrow: every dtype of its own, by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import numpy
import pandas
from pandas import arrays

__all__ = ["check_frequency", "make_column", "take_column"]

MASKED: Final[dict[str, Any]] = {
    "boolean": arrays.BooleanArray,
    "Float32": arrays.FloatingArray,
    "Float64": arrays.FloatingArray,
    **{f"{sign}Int{bits}": arrays.IntegerArray for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
NUMPY_BACKED: Final = ("NumpyExtensionArray", "PandasArray")
"""What `Series.array` is for a plain array, in pandas of today and of before 2.1."""
LONGEST_FREQUENCY: Final = 64
"""Characters; pandas takes time by the square of them."""
STORAGES: Final = ("python", "pyarrow", "pyarrow_numpy")


def take_column(column: Any) -> list[Any]:
    """A column as plain values.

    Args:
        column: what `Series.array` gives.

    Raises:
        TypeError: its dtype cannot be stored.
    """
    dtype = column.dtype
    if isinstance(dtype, numpy.dtype) or type(column).__name__ in NUMPY_BACKED:
        values = column.to_numpy()
        return ["objects", values.tolist()] if values.dtype.hasobject else ["numpy", values]
    if isinstance(dtype, pandas.StringDtype):
        return ["text", dtype.storage, dtype.na_value is pandas.NA, column.to_numpy(object, na_value=None).tolist()]
    if isinstance(dtype, pandas.CategoricalDtype):
        categories = take_column(dtype.categories.array)
        return ["categories", numpy.asarray(column.codes, "int64"), categories, dtype.categories.name, bool(dtype.ordered)]
    if isinstance(dtype, pandas.DatetimeTZDtype):
        moments = column.tz_convert("UTC").tz_localize(None).to_numpy()
        return ["moments", moments, datetime(2000, 1, 1, tzinfo=dtype.tz)]
    if isinstance(column, MASKED.get(dtype.name, ())):
        missing = numpy.asarray(column.isna())
        filler = False if dtype.name == "boolean" else 0
        return ["masked", dtype.name, column.to_numpy(dtype.numpy_dtype, na_value=filler), missing]
    if isinstance(dtype, pandas.PeriodDtype):
        return ["periods", column.asi8, dtype.name.removeprefix("period[").removesuffix("]")]
    if isinstance(dtype, pandas.IntervalDtype):
        return ["intervals", take_column(column.left.array), take_column(column.right.array), dtype.closed]
    if isinstance(dtype, pandas.ArrowDtype):
        import pyarrow

        return ["arrow", pyarrow.table({"": column.__arrow_array__()})]
    raise TypeError(f"its dtype {dtype} cannot be stored. Convert it to another, for example with astype.")


def make_column(parts: Any) -> Any:
    """The column of plain values.

    Raises:
        ValueError, TypeError: they are none; pandas may raise other errors too.
    """
    kind, *rest = parts
    return MAKERS[kind](*rest)


def check_frequency(text: Any) -> str:
    """A frequency as pandas writes it.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(text, str) or len(text) > LONGEST_FREQUENCY:
        raise ValueError("a frequency is none")
    return text


def _numpy(values: Any) -> Any:
    if not isinstance(values, numpy.ndarray) or values.ndim != 1:
        raise ValueError("a column is no array")
    return values


def _objects(values: Any) -> Any:
    found = numpy.empty(len(values), object)
    for place, value in enumerate(values):  # all at once, values that are lists would become rows
        found[place] = value
    return found


def _text(storage: Any, is_na: Any, texts: Any) -> Any:
    if storage not in STORAGES or not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError("a column of text is none")
    dtype: Any = pandas.StringDtype(storage) if is_na else pandas.StringDtype(storage, na_value=numpy.nan)
    return pandas.array(texts, dtype=dtype)


def _categories(codes: Any, categories: Any, name: Any, ordered: Any) -> Any:
    found = make_column(categories)
    index = pandas.Index(found, dtype=found.dtype, name=name, copy=False)
    return pandas.Categorical.from_codes(codes, dtype=pandas.CategoricalDtype(index, ordered=ordered))


def _moments(moments: Any, zone: Any) -> Any:
    return pandas.DatetimeIndex(_numpy(moments)).tz_localize("UTC").tz_convert(zone.tzinfo).array


def _masked(name: Any, values: Any, missing: Any) -> Any:
    made = MASKED[name](_numpy(values), _numpy(missing))
    if made.dtype.name != name:
        raise ValueError("a column is of another type")
    return made


def _periods(ordinals: Any, frequency: Any) -> Any:
    return arrays.PeriodArray(_numpy(ordinals), dtype=pandas.PeriodDtype(check_frequency(frequency)))


def _intervals(left: Any, right: Any, closed: Any) -> Any:
    return arrays.IntervalArray.from_arrays(make_column(left), make_column(right), closed=closed)


def _arrow(table: Any) -> Any:
    return arrays.ArrowExtensionArray(table.column(0))


MAKERS: Final[dict[str, Callable[..., Any]]] = {
    "numpy": _numpy,
    "objects": _objects,
    "text": _text,
    "categories": _categories,
    "moments": _moments,
    "masked": _masked,
    "periods": _periods,
    "intervals": _intervals,
    "arrow": _arrow,
}

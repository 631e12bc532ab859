"""Functions that are called without `pyarrow.compute` do what its wrappers do."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pytest

from syncblocks.connectors.arrow import compute

NUMBERS = pa.array([3, None, 1, 2])
FLOATS = pa.array([1.5, None, float("nan")])
TEXTS = pa.array(["1e5", None, "25", ""])
FLAGS = pa.array([True, None, False, True])
RECORDS = pa.record_batch({"number": NUMBERS, "flag": FLAGS})
MOMENT = pa.scalar(datetime(2024, 1, 1, tzinfo=UTC), pa.timestamp("us", "UTC"))

CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("all", (FLAGS,), {}),
    ("all", (FLAGS,), {"skip_nulls": False}),
    ("all", (pa.array([], pa.bool_()),), {}),
    ("and_", (FLAGS, pa.array([True, True, None, False])), {}),
    ("and_not", (FLAGS, pa.array([True, True, None, False])), {}),
    ("any", (FLAGS,), {}),
    ("any", (pa.chunked_array([FLAGS, FLAGS]),), {"min_count": 9}),
    ("binary_length", (TEXTS,), {}),
    ("cast", (NUMBERS, pa.string()), {}),
    ("cast", (MOMENT, pa.timestamp("s", "UTC")), {}),
    ("cast", (pa.array([1.5]), pa.int64()), {"safe": False}),
    ("cast", (NUMBERS,), {"options": pyarrow.compute.CastOptions.safe(pa.int8())}),
    ("equal", (NUMBERS, 2), {}),
    ("equal", (NUMBERS, pa.scalar(2)), {}),
    ("fill_null", (NUMBERS, 7), {}),
    ("fill_null", (NUMBERS, pa.scalar(7, pa.int8())), {}),
    ("fill_null", (FLAGS, pa.array([False] * 4)), {}),
    ("fill_null", (pa.scalar(None, pa.bool_()), False), {}),
    ("filter", (RECORDS, FLAGS), {}),
    ("filter", (NUMBERS, FLAGS), {"null_selection_behavior": "emit_null"}),
    ("filter", (pa.table(RECORDS), pa.chunked_array([FLAGS])), {}),
    ("greater", (NUMBERS, 2), {}),
    ("greater", (pa.scalar(3), pa.scalar(2)), {}),
    ("greater_equal", (NUMBERS, pa.scalar(None, pa.int64())), {}),
    ("invert", (FLAGS,), {}),
    ("is_null", (FLOATS,), {}),
    ("is_null", (FLOATS,), {"nan_is_null": True}),
    ("match_substring", (TEXTS,), {"pattern": "e"}),
    ("match_substring", (TEXTS,), {"pattern": "E", "ignore_case": True}),
    ("max", (NUMBERS,), {}),
    ("min", (pa.array([], pa.int64()),), {}),
    ("or_", (FLAGS, pa.array([True, True, None, False])), {}),
]


@pytest.mark.parametrize(("name", "values", "options"), CALLS)
def test_a_function_called_without_its_wrapper_returns_the_same(
    name: str, values: tuple[Any, ...], options: dict[str, Any]
) -> None:
    found, expected = (getattr(each, name)(*values, **options) for each in (compute, pyarrow.compute))
    assert type(found) is type(expected)
    assert found.equals(expected)


def test_every_function_that_is_called_without_its_wrapper_is_compared() -> None:
    assert {name for name, _, _ in CALLS} == {*compute._DIRECT, "cast", "fill_null"}


def test_what_does_not_fit_is_refused_alike() -> None:
    messages = []
    for each in (compute, pyarrow.compute):
        with pytest.raises(pa.ArrowInvalid) as refused:
            each.cast(pa.array(["x"]), pa.int64())
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


def test_wrappers_are_imported_for_other_functions_only() -> None:
    code = (
        "import sys; from syncblocks.connectors.imports import without_numpy\n"
        "with without_numpy(): import pyarrow as pa\n"
        "from syncblocks.connectors import compute; "
        "records = pa.RecordBatch.from_arrays([pa.nulls(2, pa.int64())], ['a']);"
        "compute.filter(records, compute.invert(compute.is_null(records.column(0))));"
        "print('pyarrow.compute' in sys.modules); compute.sum(records.column(0));"
        "print('pyarrow.compute' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("", None),
        ("é\U0001f4e6\0", None),
        (False, None),
        (0, None),
        (True, None),
        (1, None),
        (-(1 << 63), None),
        (1.5, None),
        (float("inf"), None),
        ("x", pa.large_string()),
        ("x", pa.string_view()),
        (255, pa.uint8()),
        (7, pa.uint64()),
        (7, pa.float64()),
        (0.1, pa.float32()),
    ],
)
def test_a_constant_is_the_scalar_that_arrow_makes(value: Any, kind: pa.DataType | None) -> None:
    made = compute.constant(value, kind)
    assert made.equals(pa.scalar(value, kind))
    assert made.type == pa.scalar(value, kind).type


@pytest.mark.parametrize(("value", "kind"), [(256, pa.uint8()), (-1, pa.uint64()), ("x", pa.int64())])
def test_a_constant_that_is_no_value_of_its_type_is_refused(value: Any, kind: pa.DataType) -> None:
    with pytest.raises(ValueError, match=r"."):
        compute.constant(value, kind)


def test_flags_are_booleans() -> None:
    assert compute.flags([True, False, True]).equals(pa.array([True, False, True]))
    assert compute.flags([]).equals(pa.array([], pa.bool_()))

"""`pyarrow.compute`, imported late, and values that are made without pandas."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pytest

from syncblocks.connectors.arrow import compute

NUMBERS = pa.array([3, None, 1, 2])
FLAGS = pa.array([True, None, False, True])


@pytest.mark.parametrize(
    ("values", "value"),
    [
        (NUMBERS, 7),
        (NUMBERS, pa.scalar(7, pa.int8())),
        (FLAGS, pa.array([False] * 4)),
        (pa.scalar(None, pa.bool_()), False),
    ],
)
def test_nulls_are_filled_as_arrow_fills_them(values: Any, value: Any) -> None:
    found, expected = compute.fill_null(values, value), pyarrow.compute.fill_null(values, value)
    assert type(found) is type(expected)
    assert found.equals(expected)


def test_arrows_functions_are_imported_when_one_is_called() -> None:
    code = (
        "import sys; from syncblocks.connectors.arrow import compute; print('pyarrow.compute' in sys.modules);"
        "compute.sum; print('pyarrow.compute' in sys.modules)"
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

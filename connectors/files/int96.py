"""INT96, the timestamps of old Parquet writers: a day and its nanoseconds. No unit of Arrow holds all of them.

Read as nanoseconds, as Arrow does, they wrap around before 1677 and after 2262 without an error. Read as microseconds
they lose digits. Reading both ways shows what each has lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from ..arrow.times import leaves
from ..arrow.type_names import yaml_text
from ..errors import FatalConnectorError

_NS_OF_US = 1000


def has_int96(metadata: pyarrow.parquet.FileMetaData) -> bool:
    """Tell whether a file has INT96 columns."""
    return any(metadata.schema.column(place).physical_type == "INT96" for place in range(len(metadata.schema)))


def unit_of(
    label: str,
    nanos: pyarrow.parquet.ParquetFile,
    micros: pyarrow.parquet.ParquetFile,
    wanted: pa.Schema,
    groups: Sequence[int] | None,
) -> str:
    """Return the unit that holds all INT96 values of a file.

    Raises:
        FatalConnectorError: no unit does.
    """
    as_nanos, as_micros = nanos.schema_arrow, micros.schema_arrow
    names = [
        name
        for name in wanted.names
        if name in as_nanos.names and not as_nanos.field(name).type.equals(as_micros.field(name).type)
    ]
    is_micro = any(_is_coarse(wanted.field(name).type) for name in names)
    both = (reader.iter_batches(columns=names, row_groups=groups) for reader in (nanos, micros))
    for fine, coarse in zip(*both, strict=True) if names else ():
        for name in names:
            _demand_same(label, name, fine.column(name), coarse.column(name), is_micro=is_micro)
    return "us" if is_micro else "ns"


def fine_columns(
    nanos: pyarrow.parquet.ParquetFile, micros: pyarrow.parquet.ParquetFile, names: Sequence[str]
) -> frozenset[str]:
    """Return those of some columns of times, INT96 or not, that have a digit below the microsecond."""
    found: set[str] = set()
    both = (reader.iter_batches(columns=list(names)) for reader in (nanos, micros))
    for fine, coarse in zip(*both, strict=True):
        for name in names:
            if name not in found and _has_nanoseconds(fine.column(name), coarse.column(name)):
                found.add(name)
        if len(found) == len(names):
            break
    return frozenset(found)


def _has_nanoseconds(fine: pa.Array, coarse: pa.Array) -> bool:
    if not len(fine):
        return False
    numbers, whole = _numbers(fine), _numbers(coarse)
    if fine.type.equals(coarse.type):  # no INT96
        return bool((numbers % _NS_OF_US).any())
    return bool((numbers != whole * _NS_OF_US).any())  # both wrap around alike


def _demand_same(label: str, name: str, fine: pa.Array, coarse: pa.Array, *, is_micro: bool) -> None:
    import numpy as np

    for ns, us in zip(_moments(fine), _moments(coarse), strict=True):
        numbers = [_numbers(leaf) for leaf in (ns, us)]
        lost = numbers[0] != numbers[1] * _NS_OF_US if is_micro else numbers[0] // _NS_OF_US != numbers[1]
        if lost.any():
            moment = np.datetime64(int(numbers[1][np.argmax(lost)]), "us")  # Arrow writes no year past 32767
            value = str(moment).replace("T", " ")
            said = f"`config.types: {{{yaml_text(name)}: timestamp}}`"
            mend = f"no {ns.type}, which ends in 2262; {said} takes it in microseconds"
            if not 1 <= moment.astype("datetime64[Y]").astype(int) + 1970 <= 9999:
                mend += "; if the destination only holds the years 1 to 9999, `on_rejected: keep` sets it aside"
            if is_micro:
                mend = "not fully read, since it has nanoseconds; remove the column from `config.types`"
            raise FatalConnectorError(f"{label}: column {name!r}: {value} is {mend}", key="types")


def _numbers(leaf: pa.Array) -> Any:
    return leaf.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)


def _is_coarse(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_date(kind) or (types.is_timestamp(kind) and kind.unit != "ns"))


def _moments(column: pa.Array) -> Iterator[pa.Array]:
    return (leaf for leaf in leaves(column) if pa.types.is_timestamp(leaf.type))


__all__ = ["fine_columns", "has_int96", "unit_of"]

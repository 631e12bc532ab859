"""Settings of source and destination, and tables that the pipeline file holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from ..arrow.decimals import fitting
from ..errors import ConnectorConfigError
from ..incremental.bookmarks import CHECKPOINT_RECORDS
from ..settings import Settings
from .database import FailKind


class TableSettings(Settings):
    """One table in the pipeline file."""

    columns: dict[str, str] = Field(description="column -> Arrow type, e.g. `int64`, `timestamp[us, tz=UTC]`")
    records: list[dict[str, Any]] = Field(default=[], description="one mapping a record")
    key: tuple[str, ...] = Field(default=(), description="columns that identify a record")
    is_view: bool = Field(default=False, description="offered as a view")


class MemorySourceSettings(Settings):
    """Settings of a memory source; those that make it fail are for tests."""

    database: str = Field(default="", description="name under which other connectors of this process find the tables")
    tables: dict[str, TableSettings] = Field(default={}, description="tables, by name")
    batch_size: int = Field(default=65_536, ge=1, description="records a batch")
    checkpoint_records: int = Field(default=CHECKPOINT_RECORDS, ge=1, description="records between two checkpoints")
    wires: tuple[Literal["ipc"], ...] = Field(default=(), description="transfer formats besides `arrow`")
    groups: tuple[tuple[str, ...], ...] = Field(default=(), description="streams that one read returns together")
    delay_s: float = Field(default=0, ge=0, description="seconds to wait before each batch")
    fail_at: dict[str, int] = Field(default={}, description="stream -> number of the batch, from 1, that fails")
    fail_kind: FailKind = Field(
        default="retriable", description="retriable, fatal or crash (an error that is not a connector's)"
    )
    fail_times: int = Field(default=1, ge=0, description="failures of a stream before it succeeds")


class MemoryDestinationSettings(Settings):
    """Settings of a memory destination; those that make it fail are for tests."""

    database: str = Field(description="name under which other connectors of this process find the tables")
    max_loads: int | None = Field(default=None, ge=1, description="loads at once")
    wires: tuple[Literal["ipc"], ...] = Field(default=(), description="transfer formats besides `arrow`")
    delay_commit_s: float = Field(default=0, ge=0, description="seconds that each commit takes")
    fail_on: dict[str, int] = Field(default={}, description="stream -> number of the batch, from 1, that fails")
    fail_kind: FailKind = Field(
        default="retriable", description="retriable, fatal or crash (an error that is not a connector's)"
    )
    fail_times: int = Field(default=1, ge=0, description="failures of a stream before it succeeds")


def to_table(name: str, settings: TableSettings) -> pa.Table:
    """Make a table from its settings.

    Raises:
        ConnectorConfigError: a value does not fit its column, or there is no such type.
    """
    columns = {}
    for column, kind in settings.columns.items():
        values = [record.get(column) for record in settings.records]
        try:
            columns[column] = _column(values, _arrow_type(kind))
        except (pa.ArrowException, ValueError, TypeError, ArithmeticError) as error:
            raise ConnectorConfigError(
                f"table {name!r}, column {column!r} of type {kind!r}: {error}", connector="memory", key="tables"
            ) from error
    return pa.table(columns)


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_decimal(kind):
        return pa.array([None if value is None else fitting(Decimal(str(value)), kind) for value in values], kind)
    if pa.types.is_temporal(kind):  # ISO texts, as in JSON, or the values that YAML makes of them
        return pa.array([None if value is None else str(value) for value in values], pa.string()).cast(kind)
    return pa.array(values, kind)


def _arrow_type(name: str) -> pa.DataType:
    if match := re.fullmatch(r"decimal(?:128)?\((\d+), ?(\d+)\)", name):
        return pa.decimal128(int(match[1]), int(match[2]))
    if match := re.fullmatch(r"timestamp\[(s|ms|us|ns), ?tz=([\w/+:-]+)\]", name):
        return pa.timestamp(match[1], match[2])
    return pa.type_for_alias(name)

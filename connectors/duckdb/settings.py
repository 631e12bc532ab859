"""Settings of the DuckDB connector, and the path of the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from ..incremental.bookmarks import CHECKPOINT_RECORDS
from ..settings import Settings, parse_settings, pattern_like
from ..sql.files import database_path

#: Memory limit of DuckDB while it reads and stages records: enough for full speed, and little enough to be full
#: after a million records. DuckDB keeps written data in memory up to the limit, so a higher limit lets the peak grow
#: with the table.
#: Wide tables and records get more, see `memory.MemoryNeed`; so do merges, see `DuckDBWrites.merge`.
MEMORY_LIMIT_BYTES = 128_000_000
MEMORY_LIMIT = f"{MEMORY_LIMIT_BYTES}B"


class DuckDBSettings(Settings):
    """Config of `connector: duckdb`."""

    path: str | None = Field(default=None, description="Database file; relative to the pipeline file's folder.")
    url: str | None = Field(default=None, description="The file as a URL: duckdb:///warehouse.duckdb.")
    schema_: str | None = Field(
        default=None, alias="schema", description="Source: offer only this schema. Destination: default schema."
    )
    create_schemas: bool = Field(
        default=True, description="Destination: create missing schemas; false: refuse tables in them."
    )
    memory_limit: str | None = Field(
        default=None,
        pattern=pattern_like(r"^[0-9]+(\.[0-9]+)?\s*([kKmMgGtT][iI]?)?[bB]$", "`512MB` or `4GiB`"),
        description="DuckDB's memory_limit; default: 128MB, more for wide tables and records. Merges use DuckDB's own "
        "default, or half of `memory` if the pipeline file sets it.",
    )
    checkpoint_records: int = Field(
        default=CHECKPOINT_RECORDS, ge=1, description="Source: records between two checkpoints of INCREMENTAL."
    )
    primary_key: bool = Field(
        default=False,
        description="Destination: new tables get their key as PRIMARY KEY; its index slows down loads.",
    )
    external_access: bool = Field(
        default=False, description="Source: views may read other files of this machine, and URLs."
    )
    threads: int | None = Field(default=None, ge=1, description="DuckDB's threads; default: one for each processor.")


def read_settings(config: Mapping[str, Any], folder: Path) -> tuple[DuckDBSettings, Path]:
    """Check the config and return it with the absolute path of the database file."""
    settings = parse_settings(DuckDBSettings, config, "duckdb")
    return settings, database_path(settings.path, settings.url, folder, "duckdb")

"""Settings of the SQLite connector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from ..incremental.bookmarks import CHECKPOINT_RECORDS
from ..settings import Settings, parse_settings
from ..sql.files import database_path


class SQLiteSettings(Settings):
    """Config of `connector: sqlite`."""

    path: str | None = Field(default=None, description="Database file; relative to the pipeline file's folder.")
    url: str | None = Field(default=None, description="The file as a URL: sqlite:///shop.db.")
    lock_timeout_s: float = Field(
        default=60.0, gt=0, description="Destination: how long to wait for another process that writes the file."
    )
    checkpoint_records: int = Field(
        default=CHECKPOINT_RECORDS, ge=1, description="Source: records between two checkpoints of INCREMENTAL."
    )


def read_settings(config: Mapping[str, Any], folder: Path) -> tuple[SQLiteSettings, Path]:
    """Check the config and return it with the absolute path of the database file."""
    settings = parse_settings(SQLiteSettings, config, "sqlite")
    return settings, database_path(settings.path, settings.url, folder, "sqlite")

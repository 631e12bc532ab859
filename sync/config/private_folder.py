"""The folder for what belongs to a run store on this machine: spooled data, output of ticks."""

from __future__ import annotations

from pathlib import Path


def private_folder(store_url: str, folder: Path) -> Path:
    """Return the folder of a SQLite run store, else `.syncblocks` in the folder of the pipeline files."""
    if store_url.startswith("sqlite:///"):
        return Path(store_url.removeprefix("sqlite:///").partition("?")[0]).parent
    return folder / ".syncblocks"


def tick_folder(store_url: str, folder: Path) -> Path:
    """Return the folder of the output of ticks."""
    return private_folder(store_url, folder) / "ticks"

"""`check` of destinations on local disk tells a file or folder that this user may not write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.registry import make_destination

NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can enter; pytest's own ones are closed."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        path.chmod(0o755)
        yield path
        path.chmod(0o755)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up the rights of root, who may write everywhere."""
    own = os.geteuid()
    if own:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(own)


@pytest.mark.parametrize(("connector", "name"), [("sqlite", "x.db"), ("duckdb", "x.duckdb"), ("csv", "out")])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_place_without_permission_is_an_error_of_check(
    folder: Path, connector: str, name: str, *, is_there: bool
) -> None:
    if is_there and connector != "csv":
        (folder / name).touch(mode=0o444)
    folder.chmod(0o555)
    destination = make_destination(connector, {"path": str(folder / name)}, folder)
    with as_nobody(), pytest.raises(ConnectorConfigError, match="no permission to write there") as caught:
        destination.check()
    destination.close()
    assert str(folder / name if is_there and connector != "csv" else folder) in str(caught.value)

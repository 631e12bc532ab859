"""Waiting for a source's catalog: it has a limit, and can be interrupted."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from syncblocks import load_pipeline
from syncblocks.connectors.errors import ConnectorError, FatalConnectorError, Interrupted
from syncblocks.sync.session.session import open_session
from tests.connectors.singer.singer_helpers import SQLITE, pipeline, small


@pytest.mark.parametrize(
    ("limit_s", "is_stopping", "kind", "message"),
    [
        (0.5, False, FatalConnectorError, r"within 0\.5 s \(`discovery_timeout_s`\)"),
        (60, True, Interrupted, "discovery was interrupted"),
    ],
)
def test_a_discovery_that_hangs_is_given_up(
    limit_s: float, is_stopping: bool, kind: type[ConnectorError], message: str, tmp_path: Path
) -> None:
    file = pipeline(tmp_path, small(tmp_path, own={"discovery": "hang"}), SQLITE, discovery_timeout_s=limit_s)
    started = time.monotonic()
    with closing(open_session(load_pipeline(file))) as session:
        session.is_stopping = lambda: is_stopping
        with pytest.raises(kind, match=message):
            session.discover()
    assert time.monotonic() - started < 20

"""Records with more columns than a row of the destination can hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncblocks import load_pipeline, run_pipeline


@pytest.mark.full
def test_a_row_that_postgresql_cannot_hold_names_stream_limit_and_setting(tmp_path: Path, postgres_url: str) -> None:
    names = [f"c{number}" for number in range(1500)]
    (tmp_path / "wide.csv").write_text(f"{','.join(names)}\n{','.join(['123456789012'] * len(names))}\n")
    document = {
        "source": {"connector": "csv", "config": {"path": "wide.csv"}},
        "destination": {"connector": "postgres", "config": {"url": postgres_url}},
        "streams": [{"stream": "wide"}],
    }
    result = run_pipeline(load_pipeline({"pipeline": "wide", **document}, folder=tmp_path))
    assert result.status == "failure"
    (stream,) = result.streams
    assert stream.stream == "wide"
    for part in ("8160", "`columns`", "54000"):
        assert part in str(stream.error)
    assert "_syncblocks_stg" not in str(stream.error)

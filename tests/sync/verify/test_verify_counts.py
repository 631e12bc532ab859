"""Counting a source whose malformed records are kept beside the table: they are not counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.session.inspection import count_streams, opened

FILES = {"csv": "id,v\n1,a\n2,b,too,many\n3,c\n", "jsonl": '{"id": 1, "v": "a"}\n{"id": 2,\n{"id": 3, "v": "c"}\n'}


@pytest.mark.one_of
@pytest.mark.parametrize("connector", FILES)
def test_a_run_that_keeps_a_malformed_line_counts_the_others_and_succeeds(tmp_path: Path, connector: str) -> None:
    (tmp_path / f"people.{connector}").write_text(FILES[connector])
    (tmp_path / "same.py").write_text("@transformer\ndef same(df):\n    return df\n")
    document = {
        "verify": True,
        "source": {"connector": connector, "config": {"path": f"people.{connector}"}},
        "transformers": [{"file": "same.py"}],
        "destination": {"connector": "duckdb", "config": {"path": "warehouse.duckdb"}},
        "streams": [{"stream": "people", "on_rejected": "keep"}],
    }
    file = tmp_path / "people.yaml"
    file.write_text(yaml.safe_dump(document))
    result = run_pipeline(file)
    assert (result.exit_code, result.streams[0].verdict, result.streams[0].records_rejected) == (0, "counted", 1)
    with opened(load_pipeline(file)) as session:
        (count,) = count_streams(session).streams
    assert (count.source, count.destination) == (2, 2)

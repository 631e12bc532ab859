"""Names of pipelines that nothing can show are refused, unless a pipeline has such a name already."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan


def document(folder: Path, name: str) -> dict[str, Any]:
    (folder / "orders.csv").write_text("id\n1\n")
    return {
        "pipeline": name,
        "source": {"connector": "csv", "config": {"path": "orders.csv"}},
        "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
        "streams": [{"stream": "orders", "key_properties": ["id"], "write_disposition": "merge"}],
    }


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (".", "folder"),
        ("..", "folder"),
        ("a" * 201, "201 characters"),
        ("a\tb", "U+0009"),
        ("a\x7fb", "U+007F"),
        ("a\u202eb", "U+202E"),
        ("a\u2028b", "U+2028"),
    ],
)
def test_a_name_that_cannot_be_shown_is_refused(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_pipeline(load_pipeline(document(tmp_path, name), folder=tmp_path))
    assert caught.value.key == "pipeline"
    assert why in caught.value.message
    assert not (tmp_path / "out.db").exists()


@pytest.mark.parametrize("name", ["a" * 200, "...", "a b/c", "\u00fcber \U0001f469\u200d\U0001f4bb"])
def test_any_other_name_is_accepted(tmp_path: Path, name: str) -> None:
    with opened(load_pipeline(document(tmp_path, name), folder=tmp_path)) as session:
        assert make_plan(session, None).warnings == ()


def test_a_pipeline_with_a_ledger_row_keeps_its_name(tmp_path: Path) -> None:
    file = document(tmp_path, "crm")
    run_pipeline(load_pipeline(file, folder=tmp_path)).raise_for_status()
    with closing(duckdb.connect(tmp_path / "out.db")) as database:
        database.execute("update _syncblocks_ledger set pipeline = 'a' || chr(8238) || 'b'")
    pipeline = load_pipeline({**file, "pipeline": "a\u202eb"}, folder=tmp_path)
    with opened(pipeline) as session, existing_store(pipeline) as store:
        assert ["U+202E" in warning for warning in make_plan(session, store).warnings] == [True]
    assert run_pipeline(pipeline).status == "success"

"""Names of columns in the pipeline file: each must exist."""

from __future__ import annotations

from typing import Any

import pytest

from syncblocks import PipelineFailed
from syncblocks.sync.errors import ConfigError
from tests.sync.pipelines import Bench
from tests.sync.pipelines import bench as bench

SHAPE = "@transformer\ndef shape(df):\n    return df.assign(made=1)\n"


@pytest.fixture
def renaming(bench: Bench) -> Bench:
    bench.seed("a", 1)
    bench.seed("b", [{"id": 1, "w": 2}])
    (bench.folder / "none.py").write_text("@transformer\ndef same(df):\n    return df\n")
    (bench.folder / "shape.py").write_text(SHAPE)
    return bench


@pytest.mark.parametrize(
    "blocks",
    [
        [{"file": "none.py", "rename": {"vv": "x"}}],
        [{"file": "none.py", "rename": {"w": "x"}, "streams": ["a"]}],
        [{"file": "none.py", "rename": {"v": "x"}, "streams": ["b"]}, {"file": "shape.py"}],
    ],
)
def test_a_rename_of_a_column_that_none_of_its_streams_has_is_refused(
    renaming: Bench, blocks: list[dict[str, Any]]
) -> None:
    renaming.document["transformers"] = blocks
    with pytest.raises(ConfigError, match=r"transformers\[0\]\.rename\.\w+: no stream of block 'none' has a column"):
        renaming.run()


def test_the_decorators_renames_are_held_to_the_same_rule(renaming: Bench) -> None:
    (renaming.folder / "named.py").write_text(
        "@transformer(rename_columns={'vv': 'x'})\ndef same(df):\n    return df\n"
    )
    renaming.document["transformers"] = [{"file": "named.py"}]
    with pytest.raises(ConfigError, match=r"transformers\[0\]\.file: no stream of block 'named' has a column 'vv'"):
        renaming.run()


def test_a_rename_of_a_column_that_one_stream_has_or_a_function_may_have_made_is_kept(renaming: Bench) -> None:
    renaming.document["transformers"] = [
        {"file": "shape.py", "rename": {"w": "x"}},
        {"file": "none.py", "rename": {"made": "kept"}},
    ]
    assert renaming.run().status == "success"
    assert [list(row) for row in (renaming.rows("a")[0], renaming.rows("b")[0])] == [
        ["id", "v", "kept"],
        ["id", "x", "kept"],
    ]


@pytest.mark.parametrize("key", ["key_properties", "bookmark_properties"])
def test_a_column_that_this_run_does_not_need_must_exist_in_some_stream(renaming: Bench, key: str) -> None:
    renaming.document["streams"] = [{"stream": "*", key: ["w"]}, {"stream": "a", key: ["id"]}]
    assert renaming.run().status == "success"
    renaming.document["streams"] = [{"stream": "*", key: ["vv"]}, {"stream": "*", key: ["id"]}]
    with pytest.raises(PipelineFailed, match=rf"streams\[0\]\.{key}: 'vv' matches no column of '\*'"):
        renaming.run().raise_for_status()


def test_a_type_of_a_column_that_no_file_has_is_refused_whatever_is_selected(bench: Bench) -> None:
    (bench.folder / "data").mkdir()
    for name, text in {"a": "id,v\n1,x\n", "b": "id,w\n1,2\n"}.items():
        (bench.folder / "data" / f"{name}.csv").write_text(text)
    config = {"path": "data", "types": {"ww": "string"}}
    bench.document["source"] = {"block": "load", "connector": "csv", "config": config}
    bench.document["streams"] = [{"stream": "a"}]
    with pytest.raises(ConfigError, match="no stream has a column 'ww'"):
        bench.run()
    config["types"] = {"w": "string"}
    assert bench.run().status == "success"

"""Selection of streams: patterns and exact names."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from syncblocks.connectors.stream import Stream
from syncblocks.sync.config import load_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.plan.selection import select_names, select_streams


def selected(folder: Path, pattern: str, *names: str, views: tuple[str, ...] = ()) -> list[str]:
    file = folder / "p.yaml"
    file.write_text(
        "source: {connector: memory, config: {}}\ndestination: {connector: memory, config: {}}\n"
        f"streams: [{{stream: '{pattern}'}}]\n"
    )
    schema = pa.schema([pa.field("id", pa.int64())])
    pipeline = load_pipeline(file)
    catalog = [Stream(name=name, schema=schema, is_view=name in views) for name in names]
    return [stream.name for stream in select_streams(pipeline, select_names(pipeline, catalog))]


def test_a_stream_named_like_a_pattern_does_not_take_its_place(tmp_path: Path) -> None:
    names = ("*", "a", "a[1]", "a1")
    assert selected(tmp_path, "*", *names) == list(names)
    assert selected(tmp_path, "a[1]", *names) == ["a[1]", "a1"]
    assert selected(tmp_path, "[*]", *names) == ["*"]
    assert selected(tmp_path, "a[[]1]", *names) == ["a[1]"]


def test_the_exact_name_of_a_view_with_brackets_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"views only .* here 'v\[\[\]1\]'"):
        selected(tmp_path, "v[1]", "v[1]", "t", views=("v[1]",))
    assert selected(tmp_path, "v[[]1]", "v[1]", "t", views=("v[1]",)) == ["v[1]"]

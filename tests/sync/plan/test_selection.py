"""Selection of streams: patterns and exact names."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from syncblocks.connectors.stream import Stream
from syncblocks.sync.config import load_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.plan.replaced_settings import replaced_warnings
from syncblocks.sync.plan.selection import matching_names, merged_settings, select_names, select_streams


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


@pytest.mark.parametrize("given", ["t", "other.T", "public.u"])
def test_a_name_without_its_schema_or_with_another_one_is_met_with_the_stream_of_that_name(
    tmp_path: Path, given: str
) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'public\.t'"):
        selected(tmp_path, given, "public.warehouse", "public.t")


def tagged(folder: Path, *tags: str, globs: tuple[str, ...] = ()) -> list[str]:
    file = folder / "p.yaml"
    file.write_text(
        "source: {connector: memory, config: {}}\ndestination: {connector: memory, config: {}}\nstreams:\n"
        "- {stream: '*', tags: [daily]}\n- {stream: 'o*', tags: [hourly, sales]}\n- {stream: old, tags: null}\n"
        "- {stream: left, tags: [never], selected: false}\n"
    )
    catalog = [Stream(name=name, schema=pa.schema([])) for name in ("customers", "old", "orders", "left")]
    return list(select_names(load_pipeline(file), catalog, globs, tags=tags).wanted)


def test_a_tag_chooses_the_streams_that_have_it(tmp_path: Path) -> None:
    assert tagged(tmp_path) == ["customers", "old", "orders"]
    assert tagged(tmp_path, "daily") == ["customers"]
    assert tagged(tmp_path, "sales", "daily") == ["customers", "orders"]
    assert tagged(tmp_path, "sales", globs=("orders", "customers")) == ["orders"]


def test_a_tag_that_no_stream_has_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'hourli' is the tag of no selected stream") as wrong:
        tagged(tmp_path, "hourli")
    assert (wrong.value.allowed, wrong.value.nearest) == (("daily", "hourly", "sales"), "hourly")
    with pytest.raises(ConfigError, match="'never'"):
        tagged(tmp_path, "never")
    with pytest.raises(ConfigError, match="none of the chosen streams has the tag sales: customers"):
        tagged(tmp_path, "sales", globs=("customers",))


def test_columns_come_in_the_order_of_include(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "source: {connector: memory, config: {}}\ndestination: {connector: memory, config: {}}\n"
        "streams: [{stream: t, columns: {include: [total, 'a*', id, 'a1'], exclude: [a3]}}]\n"
    )
    pipeline = load_pipeline(file)
    catalog = [
        Stream(name="t", schema=pa.schema([(name, pa.int64()) for name in ("id", "a1", "a2", "a3", "total", "x")]))
    ]
    (chosen,) = select_streams(pipeline, select_names(pipeline, catalog))
    assert chosen.stream.schema.names == ["total", "a1", "a2", "id"]


@pytest.mark.parametrize(
    ("first", "second", "is_told"),
    [
        ("checks: {a: {'>': 0}}", "checks: {b: {'>': 0}}", True),
        ("where: {a: 1}", "where: {b: 1}", True),
        ("types: {a: string}", "types: {b: string}", False),
        ("columns: {exclude: [password]}", "columns: {exclude: [a]}", True),
        ("columns: {exclude: [password]}", "columns: {include: [a, b]}", False),
        ("checks: {a: {'>': 0}}", "checks: null", False),
        ("checks: {a: {'>': 0}}", "retries: 3", False),
    ],
)
def test_a_setting_that_a_later_entry_replaces_is_told(tmp_path: Path, first: str, second: str, is_told: bool) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "source: {connector: memory, config: {}}\ndestination: {connector: memory, config: {}}\n"
        f"streams: [{{stream: '*', {first}}}, {{stream: orders, {second}}}]\n"
    )
    told = replaced_warnings(load_pipeline(file), ["customers", "orders"])
    setting = first.partition(":")[0]
    expected = (
        f"streams[1]: its `{setting}` replaces that of streams[0] for orders: repeat there what should still hold"
    )
    assert told == ([expected] if is_told else [])


def test_types_of_several_entries_add_up_until_null_ends_them(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "source: {connector: memory, config: {}}\ndestination: {connector: memory, config: {}}\nstreams:\n"
        "- {stream: '*', types: {a: string, b: string}, decode: {x: hex}}\n"
        "- {stream: 'o*', types: {b: bigint}, decode: {y: base64}}\n- {stream: old, types: null}\n"
        "- {stream: old, types: {c: date}}\n"
    )
    catalog = {name: Stream(name=name, schema=pa.schema([])) for name in ("customers", "old", "orders")}
    _, found = merged_settings(load_pipeline(file), catalog)
    assert {name: said["types"] for name, said in found.items()} == {
        "customers": {"a": "string", "b": "string"},
        "orders": {"a": "string", "b": "bigint"},
        "old": {"c": "date"},
    }
    assert found["old"]["decode"] == {"x": "hex", "y": "base64"}


def test_names_are_asked_for_as_they_are_quoted_or_by_globs() -> None:
    names = ["a", "b*", "b1", "c[*]", "d"]
    assert matching_names(names, ()) == names
    assert matching_names(names, ["d", "a"]) == ["a", "d"]
    assert matching_names(names, ["b[*]"]) == ["b*"]
    assert matching_names(names, ["b*"]) == ["b*", "b1"]
    assert matching_names(names, ["c[*]"]) == ["c[*]"]
    for missing in ("x", "x*", "d[*]"):
        with pytest.raises(ConfigError, match="matches no stream"):
            matching_names(names, ["a", missing])

"""A mapping in place of a pipeline file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from syncblocks import list_streams
from syncblocks.sync.config import load_pipeline
from syncblocks.sync.errors import ConfigError

SHOP: dict[str, Any] = {
    "pipeline": "shop",
    "source": {"connector": "csv", "config": {"path": Path("data")}},
    "destination": {"connector": "duckdb", "config": {"path": "{{ env_var('PLACE') }}"}},
    "streams": ({"stream": "orders", "key_properties": ("id",)},),
}


def shop(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SHOP), **changes}


def test_a_mapping_is_loaded_as_a_file_is(tmp_path: Path) -> None:
    pipeline = load_pipeline(shop(), folder=tmp_path, environ={"PLACE": "shop.duckdb"})
    assert (pipeline.pipeline, pipeline.path, pipeline.folder) == ("shop", None, tmp_path)
    assert pipeline.destination.config == {"path": "shop.duckdb"}
    assert pipeline.streams[0].key_properties == ("id",)
    again = load_pipeline(pipeline.given, folder=tmp_path, environ={"PLACE": "shop.duckdb"})
    assert again.model_dump() == pipeline.model_dump()


def test_relative_paths_of_a_mapping_start_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_pipeline(shop(), environ={"PLACE": "x"}).resolve("data") == tmp_path / "data"


def cycle() -> dict[str, Any]:
    values: dict[str, Any] = {}
    values["again"] = values
    return values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pipeline": None}, "pipeline: a mapping has no file to be named after: give it `pipeline`"),
        ({"streems": []}, "streems: unknown key"),
        ({"streams": [{"stream": "orders", "retries": "many"}]}, "streams[0].retries: "),
        ({"variables": {"day": {1}}}, "variables.day: a set is no JSON value"),
        ({"variables": {"rate": float("nan")}}, "variables.rate: a float is no JSON value"),
        ({"variables": {1: "one"}}, "variables: a key must be text"),
        ({"variables": {"half": "\ud800"}}, "variables.half: holds a NUL or half a surrogate pair"),
        ({"variables": {"half": "{{ '\\ud800' }}"}}, "variables.half: what it makes is not text"),
        ({"variables": cycle()}, "nested more than 50 levels deep"),
    ],
)
def test_a_mistake_in_a_mapping_names_its_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_pipeline(shop(**changes), environ={"PLACE": "x"})
    assert message in str(caught.value)
    assert ".yaml" not in str(caught.value)


def test_a_password_in_a_mapping_is_masked_and_no_reason_for_a_warning() -> None:
    source = {"connector": "postgres", "config": {"url": "postgresql://crm:pass-word-1@db/crm"}}
    pipeline = load_pipeline(shop(source=source), environ={"PLACE": "x"})
    assert pipeline.warnings == ()
    assert "pass-word-1" in pipeline.secret_values
    assert "pass-word-1" not in repr(pipeline) + repr(pipeline._origin.document)


def test_a_folder_beside_a_file_and_a_text_beside_a_mapping_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder: is for a mapping"):
        load_pipeline(tmp_path / "shop.yaml", folder=tmp_path)
    with pytest.raises(ConfigError, match="text: is the content of a file"):
        load_pipeline(shop(), text="{}")


def test_wrong_settings_of_source_and_destination_are_told_in_one_go() -> None:
    wrong = {"connector": "csv", "config": {"path": "data", "pth": 1}}
    pipeline = {"pipeline": "p", "source": wrong, "destination": wrong, "streams": [{"stream": "*"}]}
    with pytest.raises(ConfigError) as caught:
        list_streams(pipeline)
    assert [error.key for error in (caught.value, *caught.value.others)] == [
        "source.config.pth",
        "destination.config.pth",
    ]

"""Manifests: what of them may run, which one it is, and what their specification says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncblocks.connectors.airbyte.manifest import Manifest, licence_beside, load_manifest, refuse_code, shown
from syncblocks.connectors.airbyte.settings import AirbyteSettings
from syncblocks.connectors.airbyte.specification import check_config, declared_secrets, secrets_of
from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.settings import parse_settings

from .airbyte_helpers import MANIFEST


def settings(**config: Any) -> AirbyteSettings:
    return parse_settings(AirbyteSettings, config, "airbyte")


def loaded(folder: Path, content: Any, **config: Any) -> Manifest:
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (folder / "m.yaml").write_text(text)
    return load_manifest(settings(manifest="m.yaml", **config), folder, folder / "kept")


def test_an_older_manifest_has_no_type(tmp_path: Path) -> None:
    older = {key: value for key, value in MANIFEST.items() if key != "type"}
    assert loaded(tmp_path, older).content == older
    for content in ({**older, "type": "Pipeline"}, {"streams": []}):
        with pytest.raises(ConnectorConfigError, match="is no manifest"):
            loaded(tmp_path, content)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "CustomRetriever", "class_name": "components.X"},
        {"class_name": "os.system"},
        {"type": "SimpleRetriever", "class_name": "subprocess.Popen"},
        {"$parameters": {"class_name": "os.system"}},
        {"class_name": {"$ref": "#/definitions/name"}},
        {"class_name": {"type": "string", "$ref": "#/definitions/name"}},
        {"class_name": ["os.system"]},
        {"type": "CustomAuthenticator"},
    ],
)
def test_no_python_of_a_manifest_runs_without_allow_code(tmp_path: Path, part: dict[str, Any]) -> None:
    content = {**MANIFEST, "definitions": {"deep": [{"er": part}]}}
    with pytest.raises(ConnectorConfigError, match=r"definitions\.deep\.0\.er.*say `allow_code: true`"):
        loaded(tmp_path, content)
    assert loaded(tmp_path, content, allow_code=True).content == content


def test_a_column_may_be_called_class_name(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"class_name": {"type": ["null", "string"]}}}
    assert loaded(tmp_path, {**MANIFEST, "schemas": {"a": schema}}).content["schemas"]["a"] == schema


def test_aliases_of_aliases_take_no_time() -> None:
    node: Any = ["x"]
    for _ in range(60):
        node = [node, node]
    refuse_code({"a": node})
    for spec in ({"connection_specification": {"a": node}}, {"$ref": "#/spec"}):
        with pytest.raises(ConnectorConfigError, match="names itself"):
            Manifest(text=b"", content={**MANIFEST, "spec": spec}).spec  # noqa: B018


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "needs one of: manifest, package, executable"),
        ({"manifest": "a.yaml", "package": "airbyte-source-x"}, "needs one of"),
        ({"package": "airbyte-source-x", "executable": "x"}, "the package brings its program"),
        ({"manifest": "http://h/a.yaml", "sha256": "0" * 64}, "https://"),
        ({"manifest": "ftp://h/a.yaml", "sha256": "0" * 64}, "https://"),
        ({"manifest": "https://h/a.yaml"}, "sha256: is required"),
        ({"manifest": "a.yaml", "sha256": "abc"}, "sha256"),
        ({"manifest": "a.yaml", "components": "c.py"}, "allow_code: true"),
        ({"package": "airbyte-source-x", "components": "c.py", "allow_code": True}, "belongs to a `manifest`"),
        ({"manifest": "a.yaml", "env": {"AIRBYTE_ENABLE_UNSAFE_CODE": "true"}}, "AIRBYTE_ENABLE_UNSAFE_CODE"),
        ({"manifest": "a.yaml", "config": {"__injected_declarative_manifest": {}}}, "__injected_declarative_manifest"),
        ({"manifest": "a.yaml", "config": {"a": [{"__injected_components_py": ""}]}}, "__injected_components_py"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConnectorConfigError, match=reason):
        settings(**config)


def test_the_hash_decides_which_manifest_runs(tmp_path: Path) -> None:
    text = yaml.safe_dump(MANIFEST)
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert loaded(tmp_path, text, sha256=digest.upper()).text == text.encode()
    with pytest.raises(ConnectorConfigError, match="sha256: the manifest has the hash"):
        loaded(tmp_path, text + "\n", sha256=digest)


def test_a_manifest_from_a_url_is_kept_by_its_hash(tmp_path: Path) -> None:
    text = yaml.safe_dump(MANIFEST).encode()
    digest = hashlib.sha256(text).hexdigest()
    (tmp_path / f"manifest-{digest}.yaml").write_bytes(text)
    # `invalid` is a host that no name server knows.
    made = load_manifest(settings(manifest="https://m.invalid/a.yaml", sha256=digest), tmp_path, tmp_path)
    assert made.text == text


@pytest.mark.parametrize("text", ["a: [", "type: Other", "- 1", "", "\x00", "a: &a [*a]"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConnectorConfigError, match=r"m\.yaml is no"):
        loaded(tmp_path, text)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectorConfigError, match="No such file"):
        load_manifest(settings(manifest="m.yaml"), tmp_path, tmp_path)


def test_the_specification_is_found_behind_references(tmp_path: Path) -> None:
    content = {
        **MANIFEST,
        "spec": {"$ref": "#/definitions/spec"},
        "definitions": {
            "spec": {
                "type": "Spec",
                "connection_specification": {"type": "object", "properties": {"k": {"$ref": "#/k"}}},
            }
        },
        "k": {"type": "string", "airbyte_secret": True},
    }
    spec = loaded(tmp_path, content).spec
    assert spec["properties"]["k"] == {"type": "string", "airbyte_secret": True}


def test_a_manifest_that_is_read_in_turn_has_one_thread(tmp_path: Path) -> None:
    level = {"type": "ConcurrencyLevel", "default_concurrency": 25, "max_concurrency": 40}
    made = loaded(tmp_path, {**MANIFEST, "concurrency_level": level})
    read = yaml.safe_load(made.read_in_turn())
    assert read == {**MANIFEST, "concurrency_level": {"type": "ConcurrencyLevel", "default_concurrency": 1}}


def test_lookbacks_are_found_behind_references(tmp_path: Path) -> None:
    cursor = {"type": "DatetimeBasedCursor", "lookback_window": "P31D"}
    template = "P{{ config['days'] or 0 }}D"
    content = {
        **MANIFEST,
        "definitions": {
            "cursor": cursor,
            "plain": {"incremental_sync": {"$ref": "#/definitions/cursor"}},
            "calls": {"$ref": "#/definitions/plain", "$parameters": {"name": "calls"}},
            "itself": {"$ref": "#/definitions/itself"},
        },
        "streams": [
            "#/definitions/calls",
            {"$ref": "#/definitions/plain", "name": "{{ parameters['name'] }}", "$parameters": {"name": "teams"}},
            {"name": "asked", "incremental_sync": {**cursor, "lookback_window": template}},
            {"name": "deep", "incremental_stream": {"$ref": "#/definitions/plain"}},
            {"name": "none", "incremental_sync": {**cursor, "lookback_window": "P0D"}},
            {"name": "whole"},
            {"$ref": "#/definitions/itself"},
            "#/definitions/nowhere",
            7,
        ],
    }
    found = loaded(tmp_path, content).lookbacks({"days": 3})
    assert found == {"calls": "P31D", "teams": "P31D", "asked": template, "deep": "P31D"}


@pytest.mark.parametrize(
    ("template", "config", "looks_back"),
    [
        ("P{{ config['days'] or 0 }}D", {"days": 0}, False),
        ("P{{ config['days'] or 0 }}D", {}, False),
        ("P{{ config['days'] or 0 }}D", {"days": 30}, True),
        ("PT{{ config.get('hours', 0) }}H", {}, False),
        ("{{ 'P0D' if config['mode'] == 'none' else 'P1D' }}", {"mode": "none"}, False),
        ("{{ 'P0D' if config['mode'] == 'none' else 'P1D' }}", {"mode": "all"}, True),
        ("{{ config['window'] | default('P0D') }}", {}, False),
        ("{{ config['window'] }}", {}, False),
        ("P{{ config['days'] }}D", {}, True),
        ("P{{ config['a']['b'] or 0 }}D", {}, True),
        ("P{{ parameters['days'] or 0 }}D", {}, True),
        ("{{ duration('P0D') }}", {}, True),
        ("P{{ config['days'] * 0 }}D", {"days": 7}, True),
        ("P{{ config.pop('days') }}D", {"days": 0}, True),
        ("P{{ 0 ", {}, True),
    ],
)
def test_the_config_decides_whether_a_template_looks_back(
    tmp_path: Path, template: str, config: dict[str, Any], looks_back: bool
) -> None:
    streams = [{"name": "orders", "incremental_sync": {"type": "DatetimeBasedCursor", "lookback_window": template}}]
    made = loaded(tmp_path, {**MANIFEST, "streams": streams})
    assert made.lookbacks(config) == ({"orders": template} if looks_back else {})
    rules = {"type": "ConfigNormalizationRules"}
    spec = {**MANIFEST["spec"], "config_normalization_rules": rules}
    assert "orders" in loaded(tmp_path, {**MANIFEST, "streams": streams, "spec": spec}).lookbacks(config)


def test_a_licence_stands_beside_a_manifest(tmp_path: Path) -> None:
    assert licence_beside(tmp_path / "manifest.yaml") == ""
    (tmp_path / "metadata.yaml").write_text("data: {license: ELv2}")
    assert licence_beside(tmp_path / "manifest.yaml") == "ELv2"


def test_a_url_is_shown_without_login_and_query() -> None:
    assert shown("https://u:p@h:1/a.yaml?token=x") == "https://h/a.yaml"
    assert shown("a/b.yaml") == "a/b.yaml"


SPEC: dict[str, Any] = {
    "type": "object",
    "required": ["api_key", "start"],
    "additionalProperties": False,
    "properties": {
        "api_key": {"type": "string", "airbyte_secret": True},
        "start": {"type": "string", "pattern": "^[0-9]{4}$"},
        "login": {
            "oneOf": [
                {
                    "type": "object",
                    "required": ["kind", "password"],
                    "properties": {"kind": {"const": "basic"}, "password": {"type": "string", "airbyte_secret": True}},
                },
                {"type": "object", "required": ["kind"], "properties": {"kind": {"const": "none"}}},
            ]
        },
        "accounts": {"type": "array", "items": {"type": "object", "properties": {"pin": {"airbyte_secret": True}}}},
    },
}


@pytest.mark.parametrize(
    ("config", "messages"),
    [
        ({"api_key": "k", "start": "2026", "login": {"kind": "basic", "password": "p"}}, []),
        ({"start": "2026"}, ["config.api_key: is required"]),
        (
            {"api_key": 7, "start": "secret-text"},
            ["config.api_key: does not fit `type: string`", "config.start: does not"],
        ),
        ({"api_key": "k", "start": "2026", "strat": 1}, ["config.strat: is unknown; known: api_key, start"]),
        ({"api_key": "k", "start": "2026", "login": {"kind": "basic"}}, ["config.login"]),
    ],
)
def test_config_is_checked_by_the_specification_without_showing_values(config: Any, messages: list[str]) -> None:
    if not messages:
        check_config(config, SPEC)
        return
    with pytest.raises(ConnectorConfigError) as caught:
        check_config(config, SPEC)
    found = [caught.value, *caught.value.others]
    assert [message in each.message for message, each in zip(messages, found, strict=True)] == [True] * len(found)
    assert "secret-text" not in str(caught.value)
    assert caught.value.key.startswith("config.")


def test_a_specification_that_is_no_schema_is_told() -> None:
    with pytest.raises(ConnectorConfigError, match="no JSON Schema"):
        check_config({}, {"type": "odd"})


def test_secrets_are_found_wherever_the_specification_has_them() -> None:
    config = {"api_key": 'a"b', "login": {"password": "pw"}, "accounts": [{"pin": 1234}], "start": "2026"}
    assert declared_secrets(config, SPEC) == ['a"b', "pw", "1234"]
    assert 'a\\"b' in secrets_of(config, SPEC, {})
    assert secrets_of({"password": "no-spec-yet"}, {}, {"X": "of-env-1"}) == ["no-spec-yet", "of-env-1"]

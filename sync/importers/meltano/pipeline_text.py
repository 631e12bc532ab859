"""Write an extractor and a loader as the text of a pipeline file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .pairs import Pair
from .plugins import LOAD_SCHEMA, MeltanoPlugin

#: `$X`, `${X}` and `$$` in Meltano's file.
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)\}|([A-Za-z_]\w*))")

#: Meltano's own variables; in a pipeline file, paths start at the file's folder.
_BUILT_IN = {"MELTANO_PROJECT_ROOT": "."}


class Interpolation:
    """Converts Meltano's `$X` to `{{ env_var('X') }}`."""

    def __init__(self, defaults: Mapping[str, str]) -> None:
        self._defaults = defaults

    def value(self, value: Any) -> Any:
        """Return a value with all its texts converted."""
        if isinstance(value, Mapping):
            return {str(key): self.value(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self.value(part) for part in value]
        if not isinstance(value, str):
            return value
        return _VARIABLE.sub(self._one, value.replace("{{", "{{ '{{' }}"))

    def _one(self, match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        name = match[2] or match[3]
        if name in _BUILT_IN:
            return _BUILT_IN[name]
        default = self._defaults.get(name)
        if name == LOAD_SCHEMA and default is not None:
            return self.value(default) if "$" in default else default
        if default is None or "$" in default:
            return "{{ env_var('" + name + "') }}"
        quoted = default.replace("\\", "\\\\").replace("'", "\\'")
        return "{{ env_var('" + name + "', '" + quoted + "') }}"


def text_of(
    name: str,
    pair: Pair,
    extractor: MeltanoPlugin,
    loader: MeltanoPlugin,
    interpolation: Interpolation,
    notes: Sequence[str],
    path: Path,
) -> str:
    source = _connection("tap", pair.extractor, extractor)
    source |= {"select": extractor.select} if extractor.select else {}
    source |= {"catalog": extractor.catalog} if extractor.catalog else {}
    other = _not_replication(extractor.metadata)
    source |= {"metadata": other} if other else {}
    source |= {"schema": extractor.schema} if extractor.schema else {}
    document = {
        "pipeline": name,
        "source": {"connector": "singer", "config": interpolation.value(source)},
        "destination": {
            "connector": "singer",
            "config": interpolation.value(_connection("target", pair.loader, loader)),
        },
        "streams": _streams(extractor.metadata),
    }
    if pair.dbt:
        steps = " && ".join(f"dbt {command}" for command in pair.dbt)
        document["callbacks"] = [{"block": "dbt", "shell": f"cd transform && {steps}", "on": ["pipeline"]}]
    comments = [f"Written by `syncblocks init --from-meltano {path.name}`: {pair.extractor} to {pair.loader}."]
    comments += [*pair.comments, *(f"Check: {note}" for note in notes)]
    head = "".join(f"# {line}\n" for comment in comments for line in comment.splitlines())
    return head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def _connection(role: str, called: str, plugin: MeltanoPlugin) -> dict[str, Any]:
    config: dict[str, Any] = {role: plugin.name}
    if plugin.executable and ("/" in plugin.executable or not plugin.pip):
        config["executable"] = plugin.executable
    else:
        if plugin.executable:
            config[role] = plugin.executable
        config["pip"] = plugin.pip
    config["config"] = plugin.config
    if plugin.env:
        config["env"] = {key: str(value) for key, value in plugin.env.items()}
    return config


def _streams(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the stream entries: `*`, and one for each pattern with replication metadata."""
    entries: list[dict[str, Any]] = [{"stream": "*"}]
    for pattern, values in metadata.items():
        if not isinstance(values, Mapping):
            continue
        entry: dict[str, Any] = {}
        if values.get("replication-method"):
            entry["replication_method"] = str(values["replication-method"]).upper()
        if values.get("replication-key"):
            entry["bookmark_properties"] = [str(values["replication-key"])]
            entry.setdefault("replication_method", "INCREMENTAL")
        keys = values.get("table-key-properties") or values.get("view-key-properties")
        if keys:
            entry["key_properties"] = [str(key) for key in keys]
        if values.get("selected") is False:
            entry = {"selected": False}
        if not entry:
            continue
        if pattern == "*":
            entries[0] |= entry
        else:
            entries.append({"stream": pattern, **entry})
    return entries


def _not_replication(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that are not part of stream entries."""
    said = {"replication-method", "replication-key", "table-key-properties", "view-key-properties", "selected"}
    found = {
        pattern: {key: value for key, value in values.items() if key not in said}
        for pattern, values in metadata.items()
        if isinstance(values, Mapping)
    }
    return {pattern: values for pattern, values in found.items() if values}

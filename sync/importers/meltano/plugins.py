"""Extractors and loaders of a Meltano project, with inherited settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from ...config.json_file import read_json
from ...errors import ConfigError
from .parts import at, entries_of, is_below

#: Meltano's variable for the schema that a loader writes into: the extractor's `_load_schema`, else its namespace.
LOAD_SCHEMA = "MELTANO_EXTRACT__LOAD_SCHEMA"

#: Keys of a plugin, beside its settings, that nothing here stands for.
_LEFT_OUT = ("select_filter", "state", "use_cached_catalog", "python", "dialect", "target_schema")


class MeltanoPlugin(Struct):
    """An extractor or a loader, with inherited settings."""

    name: str
    pip: str = ""
    executable: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    select: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    schema: dict[str, Any] = field(default_factory=dict)
    env: dict[str, Any] = field(default_factory=dict)
    catalog: str = ""
    #: Setting `_load_schema` of an extractor; empty: its namespace.
    load_schema: str = ""
    #: Settings of its lock file that have a value of their own.
    defaults: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def plugin_of(
    project: Mapping[str, Any], overrides: Mapping[str, Any], kind: str, name: str, path: Path
) -> MeltanoPlugin:
    entries = {str(entry.get("name")): entry for entry in entries_of(at(project, "plugins", kind))}
    chain: list[Mapping[str, Any]] = []
    current: str | None = name
    while current is not None and len(chain) < 10:
        entry = entries.get(current)
        if entry is None:
            if not chain:
                raise ConfigError(f"{name!r} is not among the {kind}", path=str(path), key=f"plugins.{kind}")
            break
        chain.insert(0, entry)
        current = str(entry["inherit_from"]) if entry.get("inherit_from") else None
    base = str(chain[0].get("inherit_from") or chain[0].get("name"))
    plugin = MeltanoPlugin(name=base)
    for entry in chain:
        for setting in entries_of(entry.get("settings")):
            if setting.get("value") is not None:
                _say(plugin, str(setting.get("name")), setting["value"])
    over = {str(entry.get("name")): entry for entry in entries_of(at(overrides, "config", "plugins", kind))}
    for entry in chain:
        _merge(plugin, entry)
        _merge(plugin, over.get(str(entry.get("name")), {}))
    locked = _locked(path.parent, kind, chain)
    if not plugin.pip and not plugin.executable:
        plugin.pip = str(locked.get("pip_url") or base)
    plugin.defaults = {str(each.get("name")): each.get("value") for each in entries_of(locked.get("settings"))}
    _from_dotenv(plugin, name, path.parent / ".env")
    return plugin


def _merge(plugin: MeltanoPlugin, entry: Mapping[str, Any]) -> None:
    plugin.pip = str(entry.get("pip_url") or plugin.pip)
    plugin.executable = str(entry.get("executable") or plugin.executable)
    plugin.catalog = str(entry.get("catalog") or plugin.catalog)
    plugin.select = list(entry.get("select") or plugin.select)
    plugin.metadata |= entry.get("metadata") or {}
    plugin.schema |= entry.get("schema") or {}
    plugin.env |= entry.get("env") or {}
    plugin.load_schema = str(entry.get("load_schema") or plugin.load_schema)
    for key in _LEFT_OUT:
        if entry.get(key):
            plugin.notes.append(f"{plugin.name}: Meltano's own key {key!r} is left out")
    for key, value in (entry.get("config") or {}).items():
        _say(plugin, key, value)


def _say(plugin: MeltanoPlugin, key: str, value: Any) -> None:
    if key == "_select":
        plugin.select = list(value)
    elif key.startswith("_metadata."):
        stream, _, name = key.removeprefix("_metadata.").rpartition(".")
        plugin.metadata.setdefault(stream, {})[name] = value
    elif key == "_load_schema":
        plugin.load_schema = str(value)
    elif key.startswith("_"):
        plugin.notes.append(f"{plugin.name}: Meltano's own setting {key!r} is left out")
    else:
        _set(plugin.config, key, value)


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a value; `a.b` is the key `b` in `a`."""
    first, dot, rest = key.partition(".")
    if dot and isinstance(config.get(first, {}), dict):
        _set(config.setdefault(first, {}), rest, value)
    else:
        config[key] = value


def load_schema(extractor: MeltanoPlugin, loader: MeltanoPlugin, name: str, folder: Path) -> str:
    """Return the schema that Meltano makes the loader write into, and set it where the loader's lock file does so."""
    schema = extractor.load_schema or re.sub(r"\W", "_", name)
    for key, value in loader.defaults.items():
        if LOAD_SCHEMA in str(value) and key not in loader.config:
            _set(loader.config, key, f"${{{LOAD_SCHEMA}}}")
    if extractor.load_schema and LOAD_SCHEMA not in json.dumps(loader.config, default=str):
        loader.notes.append(
            f"{extractor.name}: `_load_schema: {extractor.load_schema}` has no place: no setting of {loader.name} "
            f"refers to {LOAD_SCHEMA}; say the schema in the target's own setting, or in `destination_table`"
        )
    return schema


def _locked(folder: Path, kind: str, chain: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the plugin's lock file; empty: there is none."""
    for entry in reversed(chain):
        name = str(entry.get("inherit_from") or entry.get("name"))
        variant = entry.get("variant")
        for file in sorted((folder / "plugins" / kind).glob(f"{name}--{variant or '*'}.lock")):
            with suppress(ConfigError):
                found = read_json(file) if is_below(file, folder) else None
                if isinstance(found, dict) and found.get("pip_url"):
                    return found
    return {}


def _from_dotenv(plugin: MeltanoPlugin, name: str, file: Path) -> None:
    """Add the settings in `.env` as references to environment variables."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    prefix = re.sub(r"\W", "_", name).upper() + "_"
    for line in lines:
        variable = line.strip().removeprefix("export ").partition("=")[0].strip()
        if variable.startswith(prefix) and not variable.startswith(prefix + "_"):
            key = variable.removeprefix(prefix).lower()
            if key not in plugin.config:
                plugin.config[key] = f"${{{variable}}}"
                plugin.notes.append(
                    f"{plugin.name}: setting {key!r} comes from {variable}, as `.env` has it: check its name"
                )

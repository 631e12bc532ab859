"""A Meltano project as pipeline files: one a pair of extractor and loader. Reads `meltano.yml`, writes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError

#: `$X`, `${X}` and `$$`, as Meltano expands them in its file.
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)\}|([A-Za-z_]\w*))")

#: What Meltano itself fills in; paths count from the file's folder here.
_BUILT_IN = {"MELTANO_PROJECT_ROOT": "."}

#: Meltano's words for intervals, as cron knows them.
_INTERVALS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeltanoPipeline:
    """One pipeline file to be."""

    file: str
    text: str
    #: What could not be brought over, or needs a look.
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Plugin:
    """An extractor or a loader, with what it inherits."""

    name: str
    pip: str = ""
    executable: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    select: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    schema: dict[str, Any] = field(default_factory=dict)
    env: dict[str, Any] = field(default_factory=dict)
    catalog: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Pair:
    """What runs together, and when."""

    extractor: str
    loader: str
    name: str
    comments: list[str] = field(default_factory=list)


def read_meltano(path: Path, environment: str | None = None) -> list[MeltanoPipeline]:
    """Return the pipelines of a Meltano project.

    Args:
        path: its `meltano.yml`.
        environment: whose overrides to take; default: the file's `default_environment`.

    Raises:
        ConfigError: the file cannot be read, or names no pair of extractor and loader.
    """
    project = _load(path)
    overrides = _environment(project, environment, path)
    pairs = _pairs(project, path)
    variables = {**_strings(project.get("env")), **_strings(overrides.get("env"))}
    made, names = [], [pair.name for pair in pairs]
    for pair in pairs:
        extractor = _plugin(project, overrides, "extractors", pair.extractor, path)
        loader = _plugin(project, overrides, "loaders", pair.loader, path)
        name = pair.name if names.count(pair.name) == 1 else f"{pair.name}_{_identifier(pair.extractor)}"
        notes = [*extractor.notes, *loader.notes]
        made.append(
            MeltanoPipeline(
                file=f"{name}.yaml",
                text=_text(name, pair, extractor, loader, _Interpolation(variables), notes, path),
                notes=tuple(notes),
            )
        )
    return made


def _load(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path=str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"is no YAML: {error}", path=str(path)) from error
    if not isinstance(found, dict):
        raise ConfigError("is no Meltano project", path=str(path))
    return found


def _environment(project: Mapping[str, Any], wanted: str | None, path: Path) -> Mapping[str, Any]:
    known = {str(entry.get("name")): entry for entry in _entries(project.get("environments"))}
    if wanted is not None and wanted not in known:
        raise ConfigError(
            f"there is no environment {wanted!r}", path=str(path), key="environments", allowed=tuple(known)
        )
    return known.get(wanted or str(project.get("default_environment", "")), {})


# -- what runs together ----------------------------------------------------------------------------------------------


def _pairs(project: Mapping[str, Any], path: Path) -> list[_Pair]:
    extractors, loaders = _names(project, "extractors"), _names(project, "loaders")
    found: dict[tuple[str, str], _Pair] = {}
    jobs: dict[str, list[_Pair]] = {}
    for job in _entries(project.get("jobs")):
        name = str(job.get("name", ""))
        jobs[name] = []
        for task in _tasks(job.get("tasks")):
            for extractor, loader, rest in _in_task(task, extractors, loaders):
                pair = found.setdefault((extractor, loader), _Pair(extractor, loader, _identifier(name)))
                pair.comments.append(f"Job {name!r}: {task}")
                if rest:
                    pair.comments.append(f"  Not brought over: {' '.join(rest)}. Call it from a callback, see docs.")
                jobs[name].append(pair)
    for schedule in _entries(project.get("schedules")):
        scheduled = list(jobs.get(str(schedule.get("job", "")), ()))
        if schedule.get("extractor") and schedule.get("loader"):
            key = (str(schedule["extractor"]), str(schedule["loader"]))
            scheduled.append(found.setdefault(key, _Pair(*key, _identifier(str(schedule.get("name", ""))))))
        for pair in scheduled:
            pair.comments += _schedule(schedule)
    if not found and len(loaders) == 1:
        for extractor in extractors:
            name = f"{_identifier(extractor)}_to_{_identifier(loaders[0])}"
            found[extractor, loaders[0]] = _Pair(extractor, loaders[0], name)
    if not found:
        raise ConfigError(
            "no job and no schedule runs an extractor with a loader, and there is more or less than one loader: "
            "nothing says what belongs together",
            path=str(path),
        )
    return list(found.values())


def _tasks(tasks: Any) -> Iterator[str]:
    for task in tasks or ():
        yield " ".join(map(str, task)) if isinstance(task, list) else str(task)


def _in_task(task: str, extractors: Sequence[str], loaders: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Return each extractor of a task with the loader behind it, and the other words."""
    words = task.split()
    pairs, rest, extractor = [], [], ""
    for word in words:
        if word in extractors:
            extractor = word
        elif word in loaders and extractor:
            pairs.append((extractor, word))
            extractor = ""
        else:
            rest.append(word)
    return [(*pair, rest if number == len(pairs) - 1 else []) for number, pair in enumerate(pairs)]


def _schedule(schedule: Mapping[str, Any]) -> list[str]:
    interval = str(schedule.get("interval", ""))
    cron = _INTERVALS.get(interval, interval)
    if cron in ("", "None", "@once", "@manual"):
        return [f"Schedule {schedule.get('name')!r}: {interval or 'none'}"]
    return [
        f"Schedule {schedule.get('name')!r}, as a line of a crontab (syncblocks leaves the time to cron):",
        f"  {cron}  cd THIS_FOLDER && syncblocks run THIS_FILE",
    ]


# -- plugins ---------------------------------------------------------------------------------------------------------


def _plugin(project: Mapping[str, Any], overrides: Mapping[str, Any], kind: str, name: str, path: Path) -> _Plugin:
    entries = {str(entry.get("name")): entry for entry in _entries(_at(project, "plugins", kind))}
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
    plugin = _Plugin(name=base)
    over = next((e for e in _entries(_at(overrides, "config", "plugins", kind)) if e.get("name") == name), {})
    for entry in (*chain, over):
        _merge(plugin, entry)
    if not plugin.pip and not plugin.executable:
        plugin.pip = _locked_pip(path.parent, kind, chain) or base
    _from_dotenv(plugin, name, path.parent / ".env")
    return plugin


def _merge(plugin: _Plugin, entry: Mapping[str, Any]) -> None:
    plugin.pip = str(entry.get("pip_url") or plugin.pip)
    plugin.executable = str(entry.get("executable") or plugin.executable)
    plugin.catalog = str(entry.get("catalog") or plugin.catalog)
    plugin.select = list(entry.get("select") or plugin.select)
    plugin.metadata |= entry.get("metadata") or {}
    plugin.schema |= entry.get("schema") or {}
    plugin.env |= entry.get("env") or {}
    for key, value in (entry.get("config") or {}).items():
        if key == "_select":
            plugin.select = list(value)
        elif key.startswith("_metadata."):
            stream, _, name = key.removeprefix("_metadata.").rpartition(".")
            plugin.metadata.setdefault(stream, {})[name] = value
        elif key.startswith("_"):
            plugin.notes.append(f"{plugin.name}: Meltano's own setting {key!r} is left out")
        else:
            _set(plugin.config, key, value)


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a value, with `a.b` as a key within a."""
    first, dot, rest = key.partition(".")
    if dot and isinstance(config.get(first, {}), dict):
        _set(config.setdefault(first, {}), rest, value)
    else:
        config[key] = value


def _locked_pip(folder: Path, kind: str, chain: Sequence[Mapping[str, Any]]) -> str:
    """Return what the lock file of Meltano's hub says to install."""
    for entry in reversed(chain):
        name = str(entry.get("inherit_from") or entry.get("name"))
        variant = entry.get("variant")
        for file in sorted((folder / "plugins" / kind).glob(f"{name}--{variant or '*'}.lock")):
            try:
                found = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(found, dict) and found.get("pip_url"):
                return str(found["pip_url"])
    return ""


def _from_dotenv(plugin: _Plugin, name: str, file: Path) -> None:
    """Take the settings that Meltano finds in `.env`: their names only, the values stay in the environment."""
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


# -- text ------------------------------------------------------------------------------------------------------------


class _Interpolation:
    """From Meltano's `$X` to `{{ env_var('X') }}`."""

    def __init__(self, defaults: Mapping[str, str]) -> None:
        self._defaults = defaults

    def value(self, value: Any) -> Any:
        """Return a value with every text in it brought over."""
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
        if default is None or "$" in default:
            return "{{ env_var('" + name + "') }}"
        quoted = default.replace("\\", "\\\\").replace("'", "\\'")
        return "{{ env_var('" + name + "', '" + quoted + "') }}"


def _text(
    name: str,
    pair: _Pair,
    extractor: _Plugin,
    loader: _Plugin,
    interpolation: _Interpolation,
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
    comments = [f"Written by `syncblocks init --from-meltano {path.name}`: {pair.extractor} to {pair.loader}."]
    comments += [line for comment in pair.comments for line in comment.splitlines()]
    comments += [f"Check: {note}" for note in notes]
    head = "".join(f"# {line}\n" for line in comments)
    return head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def _connection(role: str, called: str, plugin: _Plugin) -> dict[str, Any]:
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
    """Return the stream entries: everything that is selected, and what the metadata say of its replication."""
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
    """Return the metadata that stream entries do not say."""
    said = {"replication-method", "replication-key", "table-key-properties", "view-key-properties", "selected"}
    found = {
        pattern: {key: value for key, value in values.items() if key not in said}
        for pattern, values in metadata.items()
        if isinstance(values, Mapping)
    }
    return {pattern: values for pattern, values in found.items() if values}


def _identifier(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_") or "pipeline"


def _names(project: Mapping[str, Any], kind: str) -> list[str]:
    return [str(entry.get("name")) for entry in _entries(_at(project, "plugins", kind))]


def _entries(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _strings(value: Any) -> dict[str, str]:
    return {str(key): str(part) for key, part in value.items()} if isinstance(value, Mapping) else {}


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


__all__ = ["MeltanoPipeline", "read_meltano"]

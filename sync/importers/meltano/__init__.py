"""Convert a Meltano project to pipeline files, one for each pair of extractor and loader. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from ...errors import ConfigError, nearest_match
from .pairs import pairs_of
from .parts import entries_of, identifier, texts_of
from .pipeline_text import Interpolation, text_of
from .plugins import LOAD_SCHEMA, load_schema, plugin_of


class MeltanoPipeline(Struct, frozen=True, kw_only=True):
    """The text of one pipeline file."""

    file: str
    text: str
    #: Settings that were not converted, or need a check.
    notes: tuple[str, ...] = ()


def read_meltano(path: Path, environment: str | None = None) -> list[MeltanoPipeline]:
    """Return the pipelines of a Meltano project.

    Args:
        path: the `meltano.yml`.
        environment: the environment whose overrides apply; default: the file's `default_environment`.

    Raises:
        ConfigError: the file cannot be read, or names no pair of extractor and loader.
    """
    project = _load(path)
    for pattern in project.get("include_paths") or ():
        for file in sorted(_files(path.parent, Path(str(pattern)))):
            if file.is_file() and file.resolve() != path.resolve():
                _include(project, _load(file))
    overrides = _environment(project, environment, path)
    pairs = pairs_of(project, path)
    variables = {**texts_of(project.get("env")), **texts_of(overrides.get("env"))}
    made, names = [], [pair.name for pair in pairs]
    for pair in pairs:
        extractor = plugin_of(project, overrides, "extractors", pair.extractor, path)
        loader = plugin_of(project, overrides, "loaders", pair.loader, path)
        name = pair.name if names.count(pair.name) == 1 else f"{pair.name}_{identifier(pair.extractor)}"
        schema = load_schema(extractor, loader, pair.extractor, path.parent)
        notes = [*extractor.notes, *loader.notes, *pair.notes]
        if pair.dbt:
            notes.append("the callback `dbt` starts dbt in the folder `transform`; it has to be on the PATH")
        made.append(
            MeltanoPipeline(
                file=f"{name}.yaml",
                text=text_of(
                    name, pair, extractor, loader, Interpolation(variables | {LOAD_SCHEMA: schema}), notes, path
                ),
                notes=tuple(notes),
            )
        )
    return made


def _files(folder: Path, pattern: Path) -> Iterator[Path]:
    if pattern.is_absolute():
        return Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))
    return folder.glob(str(pattern))


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


def _include(project: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Add what a file of `include_paths` has, as Meltano does."""
    for key in ("environments", "jobs", "schedules"):
        project[key] = [*(project.get(key) or ()), *(part.get(key) or ())]
    plugins = {kind: list(entries or ()) for kind, entries in (project.get("plugins") or {}).items()}
    for kind, entries in (part.get("plugins") or {}).items():
        plugins[kind] = [*plugins.get(kind, ()), *(entries or ())]
    project["plugins"] = plugins


def _environment(project: Mapping[str, Any], wanted: str | None, path: Path) -> Mapping[str, Any]:
    known = {str(entry.get("name")): entry for entry in entries_of(project.get("environments"))}
    if wanted is not None and wanted not in known:
        raise ConfigError(
            f"there is no environment {wanted!r}",
            path=str(path),
            key="environments",
            allowed=tuple(known),
            nearest=nearest_match(wanted, known),
        )
    return known.get(wanted or str(project.get("default_environment", "")), {})


__all__ = ["MeltanoPipeline", "read_meltano"]

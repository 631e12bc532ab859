"""Convert a Meltano project to pipeline files, one for each pair of extractor and loader. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from ...config.yaml_document import read_document
from ...errors import ConfigError, nearest_match
from .pairs import Pair, pairs_of
from .parts import entries_of, identifier, is_below, texts_of
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
    outside = []
    for pattern in project.get("include_paths") or ():
        for file in _files(Path(str(pattern)), path):
            if not is_below(file, path.parent):
                outside.append(f"{file} of `include_paths` is outside of the project, and is left out: copy it into it")
            elif file.is_file() and file.resolve() != path.resolve():
                _include(project, _load(file))
    overrides = _environment(project, environment, path)
    pairs = pairs_of(project, path)
    pairs[0].notes += outside
    variables = {**texts_of(project.get("env")), **texts_of(overrides.get("env"))}
    made = []
    for pair, name in zip(pairs, _names(pairs, path), strict=True):
        extractor = plugin_of(project, overrides, "extractors", pair.extractor, path)
        loader = plugin_of(project, overrides, "loaders", pair.loader, path)
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


def _names(pairs: Sequence[Pair], path: Path) -> list[str]:
    """Return a name for each pair: as short as tells it from the others."""
    made = [pair.name for pair in pairs]
    for more in ([pair.extractor for pair in pairs], [pair.loader for pair in pairs]):
        made = [
            name if made.count(name) == 1 else f"{name}_{identifier(word)}"
            for name, word in zip(made, more, strict=True)
        ]
    if twice := next((name for name in made if made.count(name) > 1), None):
        raise ConfigError(f"two pairs of extractor and loader would both be written into {twice}.yaml", path=str(path))
    return made


def _files(pattern: Path, path: Path) -> list[Path]:
    try:
        if pattern.is_absolute():
            return sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
        return sorted(path.parent.glob(str(pattern)))
    except (ValueError, LookupError, NotImplementedError) as error:
        raise ConfigError(f"{str(pattern)!r} is no pattern of files", path=str(path), key="include_paths") from error


def _load(path: Path) -> dict[str, Any]:
    return read_document(path, kind="a Meltano project is one", is_foreign=True).value


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

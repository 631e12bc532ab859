"""The catalog file: streams with their keys and the types of their columns, written once, then edited by a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from syncblocks.connectors.errors import ConnectorConfigError

from ..errors import ConfigError
from .pipeline import Pipeline
from .yaml_document import Document, Loc, describe, read_document


class CatalogStream(Struct, frozen=True, kw_only=True):
    """One stream of a catalog file."""

    key_properties: tuple[str, ...]
    #: Column -> the name of its type; None: as it is found.
    columns: Mapping[str, str | None]
    #: No glob matches a view.
    is_view: bool = False


class CatalogFile(Struct, frozen=True, kw_only=True):
    """A catalog file."""

    document: Document
    streams: Mapping[str, CatalogStream]

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return Path(self.document.path or "").name


def catalog_path(pipeline: Pipeline) -> Path:
    """Return where `discover --save` writes: `STEM.catalog.yaml` beside the pipeline file.

    Raises:
        ConfigError: the pipeline was given as a mapping.
    """
    if pipeline.path is None:
        raise ConfigError("a pipeline without a file has no folder for a catalog file", key="catalog")
    return pipeline.path.with_name(f"{pipeline.path.stem}.catalog.yaml")


def read_catalog(pipeline: Pipeline) -> CatalogFile | None:
    """Return the catalog file that the pipeline names; None: it names none.

    Raises:
        ConfigError: there is no such file, or it is no catalog; with file and line.
    """
    if pipeline.catalog is None:
        return None
    path = pipeline.code_path(pipeline.catalog)
    if not path.is_file():
        raise pipeline.error(("catalog",), f"no file {path}: `syncblocks discover --save` writes one")
    document = read_document(path, kind="a catalog file is a mapping: `streams:`")
    for key in document.value:
        if key != "streams":
            raise document.error((key,), f"unknown key {key!r}; a catalog file has `streams:` only")
    streams = _mapping(document, ("streams",), document.value.get("streams"))
    return CatalogFile(document=document, streams={name: _stream(document, name, streams[name]) for name in streams})


def _stream(document: Document, name: str, value: Any) -> CatalogStream:
    loc = ("streams", name)
    stream = _mapping(document, loc, value)
    allowed = ("key_properties", "columns", "is_view")
    for key in stream:
        if key not in allowed:
            raise document.error((*loc, key), f"unknown key {key!r}", allowed=allowed)
    keys = stream.get("key_properties") or []
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise document.error((*loc, "key_properties"), f"must be a list of columns, not {describe(keys)}")
    columns = _mapping(document, (*loc, "columns"), stream.get("columns"))
    for column, kind in columns.items():
        if kind is not None and not isinstance(kind, str):
            raise document.error((*loc, "columns", column), f"must be the name of a type, not {describe(kind)}")
        if kind is not None:
            _demand_type(document, (*loc, "columns", column), kind)
    is_view = stream.get("is_view", False)
    if not isinstance(is_view, bool):
        raise document.error((*loc, "is_view"), f"must be true or false, not {describe(is_view)}")
    return CatalogStream(key_properties=tuple(keys), columns=columns, is_view=is_view)


def _demand_type(document: Document, loc: Loc, kind: str) -> None:
    from syncblocks.connectors.arrow.type_names import DECIMAL, TYPES, near_type, parse_type  # Arrow takes time to load

    try:
        parse_type(kind)
    except ConnectorConfigError:
        raise document.error(loc, f"no type {kind!r}", allowed=(*TYPES, DECIMAL), nearest=near_type(kind)) from None


def _mapping(document: Document, loc: Loc, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise document.error(loc, f"must be a mapping, not {describe(value)}")
    return value

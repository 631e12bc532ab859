"""Settings of connectors: one pydantic model for each connector, and one resolver for every path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import ConnectorConfigError

Model = TypeVar("Model", bound="Settings")


class Settings(BaseModel):
    """Base of every connector's settings; editors and docs show each field's description."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def parse_settings(model: type[Model], config: Mapping[str, Any], connector: str) -> Model:
    """Check a connector's `config` mapping.

    Raises:
        ConnectorConfigError: the message has the key, the allowed keys and the nearest match; never a value.
    """
    try:
        return model.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        message = f"config of connector {connector!r}: {f'{key}: ' if key else ''}{reason}"
        if first["type"] == "extra_forbidden":
            known = sorted(field.alias or name for name, field in model.model_fields.items())
            message = f"config of connector {connector!r} has no key {key!r}{choice(key, known)}"
        raise ConnectorConfigError(message, connector=connector, key=key) from None


def choice(word: str, known: Iterable[str]) -> str:
    """Return `; allowed: ...; did you mean 'x'?` for a word that is none of the known ones."""
    import difflib

    allowed = sorted(known)
    near = difflib.get_close_matches(word.lower(), allowed, n=1)
    return f"; allowed: {', '.join(allowed)}" + (f"; did you mean {near[0]!r}?" if near else "")


def resolve_path(path: str, folder: Path) -> Path:
    """Return the absolute path; a relative path counts from `folder`, the pipeline file's. The only resolver."""
    if "\0" in path:
        raise ConnectorConfigError(f"a path may not hold a NUL: {path!r}")
    expanded = Path(path).expanduser()
    return Path.absolute(expanded if expanded.is_absolute() else folder / expanded)


def is_url(path: str) -> bool:
    """Tell whether a path is a URL (`s3://bucket/x`, also `file://`)."""
    return "://" in path

"""Settings of connectors: one pydantic model for each connector, and one resolver for every path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import ConnectorConfigError

Model = TypeVar("Model", bound="Settings")

#: Schemes of URLs of files that are opened; others, such as chained ones, are refused.
FILE_SCHEMES = frozenset(
    [
        *("file", "local", "memory", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "http", "https"),
        *("hdfs", "webhdfs", "oci", "r2", "oss", "cos", "sftp", "ssh", "ftp"),
    ]
)


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
            import difflib

            known = sorted(field.alias or name for name, field in model.model_fields.items())
            near = difflib.get_close_matches(key, known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            message = f"config of connector {connector!r} has no key {key!r}{hint} Allowed: {', '.join(known)}"
        raise ConnectorConfigError(message, connector=connector, key=key) from None


def resolve_path(path: str, folder: Path) -> Path:
    """Return the absolute path; a relative path counts from `folder`, the pipeline file's. The only resolver."""
    if "\0" in path:
        raise ConnectorConfigError(f"a path may not hold a NUL: {path!r}")
    expanded = Path(path).expanduser()
    return Path.absolute(expanded if expanded.is_absolute() else folder / expanded)


def is_url(path: str) -> bool:
    """Tell whether a path is a URL (`s3://bucket/x`, also `file://`)."""
    return "://" in path


def url_scheme(path: str) -> str:
    """Return the scheme of a file's URL; raise if such URLs are not opened."""
    scheme = path.partition("://")[0].lower()
    if scheme not in FILE_SCHEMES:
        raise ConnectorConfigError(
            f"URLs of scheme {scheme!r} are not opened; allowed: {', '.join(sorted(FILE_SCHEMES))}", key="path"
        )
    return scheme

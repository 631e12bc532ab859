"""Settings of Airbyte's sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from ..incremental.bookmarks import CHECKPOINT_RECORDS, CHECKPOINT_S
from ..settings import Settings, pattern_like

#: Lets the CDK run Python that a manifest names; only `allow_code` sets it.
UNSAFE_CODE = "AIRBYTE_ENABLE_UNSAFE_CODE"

#: Beginning of the config's keys by which the CDK is given a manifest, or Python.
INJECTED = "__injected"


class AirbyteSettings(Settings):
    """Config of `connector: airbyte`: where the connector comes from, and its own config."""

    manifest: str = Field(default="", description="a connector's manifest: a file, or `https://...` with `sha256`")
    sha256: str = Field(
        default="",
        pattern=pattern_like(r"^$|^[0-9a-fA-F]{64}$", "the 64 hexadecimal digits of a SHA-256 hash"),
        description="hash of the manifest; required for a URL",
    )
    components: str = Field(
        default="", description="file with the Python of the manifest's own components; needs `allow_code`"
    )
    allow_code: bool = Field(
        default=False, description="run Python that the manifest names: `components`, `Custom...`, any `class_name`"
    )
    package: str = Field(
        default="",
        description="a connector as a package, as for `pip install`: `airbyte-source-faker==7.2.1`; each has its own "
        "environment",
    )
    executable: str = Field(
        default="",
        description="an installed connector: a path, or a name on the PATH; with `manifest`, the program that reads it",
    )
    python: str = Field(default="", description="Python of the environment; default: the one of syncblocks")
    config: dict[str, Any] = Field(default={}, description="what the connector's own specification asks")
    config_file: str = Field(
        default="", description="file for credentials that the connector changes, kept with mode 0600"
    )
    # `schema` is a method of the model, hence the alias.
    schema_: dict[str, dict[str, dict[str, Any]]] = Field(
        default={}, alias="schema", description="stream or glob -> column -> JSON Schema that replaces the connector's"
    )
    env: dict[str, str] = Field(default={}, description="environment variables for the connector")
    discovery_cache_s: float = Field(default=900, ge=0, description="seconds for which a discovered catalog is kept")
    hang_timeout_s: float | None = Field(
        default=3600, gt=0, description="seconds without any output until the connector is ended; null: never"
    )
    install_timeout_s: float = Field(default=1800, gt=0, description="longest time of an installation, in seconds")
    checkpoint_records: int = Field(default=CHECKPOINT_RECORDS, ge=1, description="records between two commits")
    checkpoint_s: float = Field(default=CHECKPOINT_S, ge=0, description="seconds after which a commit comes earlier")

    @field_validator("config")
    @classmethod
    def _injects_nothing(cls, config: dict[str, Any]) -> dict[str, Any]:
        found = next((key for key in _keys(config) if key.startswith(INJECTED)), None)
        if found is not None:
            raise ValueError(f"no key {found!r}: the CDK would take code or another manifest from it")
        return config

    @field_validator("env")
    @classmethod
    def _allows_no_code(cls, env: dict[str, str]) -> dict[str, str]:
        if UNSAFE_CODE in env:
            raise ValueError(f"no {UNSAFE_CODE}: only `allow_code: true` lets Python of a manifest run")
        return env

    @model_validator(mode="after")
    def _names_one_connector(self) -> AirbyteSettings:
        if bool(self.manifest) + bool(self.package) != 1 and (self.manifest or self.package or not self.executable):
            raise ValueError("needs one of: manifest, package, executable")
        if self.package and self.executable:
            raise ValueError("has `package` and `executable`: the package brings its program")
        if "://" in self.manifest and urlsplit(self.manifest).scheme != "https":
            raise ValueError("manifest: a URL must begin with https://")
        if "://" in self.manifest and not self.sha256:
            raise ValueError("sha256: is required for a manifest from a URL: its hash, by `sha256sum`")
        if self.components and not self.manifest:
            raise ValueError("components: belongs to a `manifest`")
        if self.components and not self.allow_code:
            raise ValueError("components: is Python that would run: read it, then say `allow_code: true`")
        return self


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)

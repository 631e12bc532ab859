"""Settings of Singer taps as sources, and of targets as destinations."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ..incremental.bookmarks import CHECKPOINT_RECORDS, CHECKPOINT_S
from ..settings import Settings, pattern_like


class PluginSettings(Settings):
    """Settings of taps and targets: where the plugin comes from and how it is started."""

    pip: str = Field(
        default="",
        description="packages to install, in the form of `pip install`: `tap-jsonl==0.3.1`, also with "
        "`--hash=sha256:...`; each plugin gets its own environment",
    )
    executable: str = Field(default="", description="an installed program: a path, or a name on the PATH")
    python: str = Field(default="", description="Python of the plugin's environment; default: the Python of syncblocks")
    config: dict[str, Any] = Field(default={}, description="the plugin's own config")
    env: dict[str, str] = Field(default={}, description="environment variables for the plugin")
    hang_timeout_s: float | None = Field(
        default=3600, gt=0, description="seconds without any output until the plugin is ended; null: never"
    )
    install_timeout_s: float = Field(default=1800, gt=0, description="maximum of seconds for an installation")


class SingerSourceSettings(PluginSettings):
    """Config of `connector: singer` as a source."""

    tap: str = Field(default="", description="name of the tap's program: `tap-jsonl`; default: the first of `pip`")
    catalog: str = Field(default="", description="path of a catalog, for a tap that cannot discover")
    select: tuple[str, ...] = Field(
        default=(), description="streams and columns to read: `users`, `users.*`, `!users.secret`, globs; default: all"
    )
    metadata: dict[str, dict[str, Any]] = Field(
        default={}, description="stream or glob -> metadata: `replication-method`, `replication-key`, ..."
    )
    # `schema` is a method of the model, hence the alias.
    schema_: dict[str, dict[str, dict[str, Any]]] = Field(
        default={}, alias="schema", description="stream or glob -> column -> JSON Schema that replaces the tap's"
    )
    flags: tuple[Literal["catalog", "properties", "state"], ...] | None = Field(
        default=None, description="options that the tap supports; default: found in its --help"
    )
    per_stream: bool = Field(
        default=False, description="start one tap for each stream, several at once, if the tap supports it"
    )
    batch_roots: tuple[str, ...] = Field(
        default=(),
        description="folders and URLs for files of a BATCH; default: `batch_config.storage.root` of `config`",
    )
    discovery_cache_s: float = Field(default=900, ge=0, description="seconds for which a discovered catalog is kept")
    max_columns: int = Field(default=10_000, ge=1, description="maximum of columns of a stream; more are an error")
    checkpoint_records: int = Field(default=CHECKPOINT_RECORDS, ge=1, description="records between two commits")
    checkpoint_s: float = Field(default=CHECKPOINT_S, ge=0, description="seconds after which a commit comes earlier")
    class_: str = Field(
        default="",
        alias="class",
        pattern=pattern_like(r"^$|^[\w.]+:\w+$|^.+\.py:\w+$", "`package.module:Class` or `./file.py:Class`"),
        description="`package.module:TapX` or `./file.py:TapX`: a singer-sdk class from an installed package or a "
        "file of the project; it runs in this process",
    )

    @model_validator(mode="after")
    def _names_one_tap(self) -> SingerSourceSettings:
        if sum(map(bool, (self.pip, self.executable, self.class_))) != 1:
            raise ValueError("needs one of: pip, executable, class")
        return self


class SingerTargetSettings(PluginSettings):
    """Config of `connector: singer` as a destination."""

    target: str = Field(
        default="", description="name of the target's program: `target-jsonl`; default: the first of `pip`"
    )
    class_: str = Field(
        default="",
        alias="class",
        pattern=pattern_like(r"^$|^[\w.]+:\w+$|^.+\.py:\w+$", "`package.module:Class` or `./file.py:Class`"),
        description="`package.module:TargetX` or `./file.py:TargetX`: a singer-sdk class from an installed package or "
        "a file of the project; it runs in this process",
    )
    activate_version: bool = Field(
        default=True,
        description="end a `replace` with ACTIVATE_VERSION, which tells a target to delete the records of earlier runs",
    )

    max_loads: int = Field(
        default=1,
        ge=1,
        description="number of simultaneous targets, one for each stream. Most targets allow one: several create one "
        "schema or lock one file",
    )

    @model_validator(mode="after")
    def _names_one_target(self) -> SingerTargetSettings:
        if sum(map(bool, (self.requirement, self.executable, self.class_))) != 1:
            raise ValueError("needs one of: pip, executable, class")
        return self

    @property
    def requirement(self) -> str:
        """Return the requirement; the default is the target's name."""
        return self.pip or ("" if self.executable or self.class_ else self.target)

"""Settings of a Singer tap as a source."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ..incremental.bookmarks import CHECKPOINT_RECORDS, CHECKPOINT_S
from ..settings import Settings


class PluginSettings(Settings):
    """Settings of taps and targets: where the plugin comes from and how it is started."""

    pip: str = Field(
        default="",
        description="what to install, as for `pip install`: `tap-jsonl==0.3.1`, also with `--hash=sha256:...`; "
        "each plugin gets its own environment",
    )
    executable: str = Field(default="", description="a program that is there already: a path, or a name on the PATH")
    python: str = Field(default="", description="Python of the plugin's environment; default: the one of syncblocks")
    config: dict[str, Any] = Field(default={}, description="the plugin's own config")
    env: dict[str, str] = Field(default={}, description="environment variables for the plugin")
    hang_timeout_s: float | None = Field(
        default=3600, gt=0, description="seconds without a sign of life after which the plugin is ended; null: never"
    )
    install_timeout_s: float = Field(default=1800, gt=0, description="seconds that an installation may take")


class SingerSourceSettings(PluginSettings):
    """Settings of a Singer tap."""

    tap: str = Field(default="", description="name of the tap's program: `tap-jsonl`; default: the first of `pip`")
    catalog: str = Field(default="", description="path of a catalog, for a tap that cannot discover")
    select: tuple[str, ...] = Field(
        default=(), description="what is offered: `users`, `users.*`, `!users.secret`, globs; default: everything"
    )
    metadata: dict[str, dict[str, Any]] = Field(
        default={}, description="stream or glob -> metadata: `replication-method`, `replication-key`, ..."
    )
    # `schema` is a method of the model, hence the alias.
    schema_: dict[str, dict[str, dict[str, Any]]] = Field(
        default={}, alias="schema", description="stream or glob -> column -> JSON Schema that replaces the tap's"
    )
    flags: tuple[Literal["catalog", "properties", "state"], ...] | None = Field(
        default=None, description="options that the tap takes; default: what its --help says"
    )
    per_stream: bool = Field(
        default=False, description="start the tap once a stream, several at once, where it allows that"
    )
    batch_roots: tuple[str, ...] = Field(
        default=(),
        description="folders and URLs for files of a BATCH; default: `batch_config.storage.root` of `config`",
    )
    discovery_cache_s: float = Field(default=900, ge=0, description="seconds for which a discovered catalog is kept")
    checkpoint_records: int = Field(default=CHECKPOINT_RECORDS, ge=1, description="records between two commits")
    checkpoint_s: float = Field(default=CHECKPOINT_S, ge=0, description="seconds after which a commit comes earlier")

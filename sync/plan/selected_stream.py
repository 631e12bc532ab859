"""One selected stream with its settings, and the errors of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.write_spec import WriteSpec

from ..config import Pipeline
from ..errors import ConfigError, Mistake, nearest_match
from .policy import Policy

#: Makes the error of one setting, see `failer`.
Failer = Callable[..., ConfigError]


class OfSource(ConfigError):
    """The source shows why a stream cannot be synced: its block fails, and not the destination's."""


class SelectedStream(Struct, frozen=True, kw_only=True):
    """One stream to sync, with every default filled in."""

    #: Without excluded columns; keys and bookmark_properties as configured.
    stream: Stream
    destination_table: str
    #: How it is written, by the source's names of its columns; after the plan, that of `PlannedStream` holds.
    write: WriteSpec
    policy: Policy
    #: For columns that the destination cannot keep exactly: fail, cast or text.
    on_lossy: str
    #: Whether its key is unique in the source.
    has_own_key: bool
    #: For changes of the source's columns: evolve, freeze or ignore.
    on_schema_change: str
    #: Whether its table is replaced where it is there; else the stream is left out then.
    replaces_existing: bool
    #: Types that the pipeline says, by the source's names; of columns that the source does not read in them itself.
    said: Mapping[str, pa.DataType]
    #: How texts write bytes, by the source's names.
    decode: Mapping[str, str]
    #: Most characters of texts, by the source's names.
    lengths: Mapping[str, int]
    #: The source's columns that the pipeline leaves out.
    left_out: tuple[str, ...]
    #: Whether columns that are new at the source are filled in records that were there before.
    fills_new_columns: bool
    #: How it differs from the catalog file, one phrase for each difference.
    differences: tuple[str, ...]

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.stream.name


def failer(
    pipeline: Pipeline, location: tuple[str | int, ...], stream: str, kind: type[ConfigError] = ConfigError
) -> Failer:
    """Return what makes an error of a setting: its key, the message, what is allowed, and what was given.

    An error that is `alone` is a `Mistake`: the file shows it without the source.
    """

    def fail(
        key: str, message: str, allowed: Sequence[str] = (), got: str | None = None, *, alone: bool = False
    ) -> ConfigError:
        nearest = nearest_match(got, allowed) if got else None
        text = f"stream {stream!r}: {message}"
        made = Mistake if alone else kind
        return pipeline.error((*location, key), text, allowed=tuple(allowed), nearest=nearest, kind=made)

    return fail


def is_disposition_said(settings: Mapping[str, Any], method: ReplicationMethod) -> bool:
    """Tell whether the file decides how a stream is written: else a key that is gone at the source changes that.

    Args:
        settings: the stream's entries in the file, merged.
        method: where they say none.
    """
    named = ("write_disposition", "key_properties", "unique_constraints")
    method = settings.get("replication_method") or method
    return method != ReplicationMethod.INCREMENTAL or any(settings.get(name) is not None for name in named)

"""`syncblocks fill`: a run fills columns in existing records, new columns or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.struct_helpers import replace

from ...errors import ConfigError, nearest_match
from ...plan.features.fill_new_columns import PlannedFill, why_no_filling
from ...plan.plan import Plan, PlannedStream


def filling(plan: Plan, columns: Mapping[str, Sequence[str]], can: Capabilities) -> Plan:
    """Return a plan that fills columns of some streams before their load.

    Args:
        plan: the plan of the run.
        columns: stream -> columns, by the source's names.
        can: the destination's capabilities.

    Raises:
        ConfigError: no such stream or column, the stream cannot be filled, or it has not been loaded yet.
    """
    for name in columns:
        if all(planned.name != name for planned in plan.streams):
            raise ConfigError(
                f"stream {name!r} is not a stream of this run; `syncblocks plan` lists them", key="STREAM"
            )
    return replace(
        plan,
        streams=tuple(
            _filled(planned, columns[planned.name], can) if planned.name in columns else planned
            for planned in plan.streams
        ),
    )


def _filled(planned: PlannedStream, columns: Sequence[str], can: Capabilities) -> PlannedStream:
    stream = planned.stream
    if reason := why_no_filling(planned, can, is_decided=planned.is_schema_decided):
        raise ConfigError(f"stream {planned.name!r}: `fill` {reason}", key="STREAM")
    if planned.start.bookmark is None:
        raise ConfigError(
            f"stream {planned.name!r} starts from scratch ({planned.start.reason}): `run` reads all of it", key="STREAM"
        )
    able = [name for name in stream.schema.names if name not in stream.key_properties]
    for column in columns:
        if column not in able:
            text = f"{column!r} is no column of stream {planned.name!r} that can be filled"
            raise ConfigError(text, key="--columns", allowed=tuple(able), nearest=nearest_match(column, able))
    known = planned.step(PlannedFill)
    wanted = {*columns, *(() if known is None else known.columns)}
    return planned.with_step(PlannedFill(columns=tuple(name for name in able if name in wanted)))

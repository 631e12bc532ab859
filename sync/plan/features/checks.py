"""`checks` of a stream: conditions that its records must meet as they would be written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from syncblocks.connectors.read_spec import MATCHES, Condition

from ...config import Pipeline
from ...config.filters import UNIQUE, FilterCondition
from ...config.naming import name_by
from ...errors import ConfigError, Mistake, nearest_match
from ..columns import ColumnMapping
from ..selected_stream import OfSource, SelectedStream


def value_checks(
    pipeline: Pipeline,
    stream: SelectedStream,
    said: Sequence[FilterCondition],
    mapping: ColumnMapping,
    names: Mapping[str, str],
    *,
    is_decided: bool,
    setting: str = "checks",
) -> tuple[Condition, ...]:
    """Return a stream's checks, with its columns as the destination gets them.

    Where a transformer's function decides the columns, the values are read in their types once they are known.

    Args:
        pipeline: the pipeline file.
        stream: the selected stream.
        said: the checks, as the file names their columns.
        mapping: of its columns.
        names: column of the source -> what it is called as it arrives.
        is_decided: no function of a transformer decides the columns.
        setting: `checks`, or `warn_checks`.

    Raises:
        ConfigError: a check names no column, a masked one or one of `add_columns`, or a value that its column cannot
            hold.
    """
    from syncblocks.connectors.arrow.type_names import type_text
    from syncblocks.connectors.filters import condition_of, pattern_of  # a pipeline without checks spares the import

    def fail(message: str, kind: type[ConfigError] = OfSource) -> Exception:
        return pipeline.error((*stream.policy.location, setting), f"stream {stream.name!r}: {message}", kind=kind)

    masks = stream.stream.read.masks
    masked = {names.get(name, name) for name in (() if masks is None else masks.fields)}
    known = [name for name in mapping.arriving.schema.names if name not in stream.policy.added.names]
    found = []
    for column, operator, values in said:
        name = name_by(stream.policy.naming, column)
        if name in masked:
            raise fail(f"{column!r} is masked, and a check needs its values as they are", Mistake)
        if name in stream.policy.added.names:
            raise fail(f"{column!r} is one of `add_columns`, which has one value in all records", Mistake)
        if operator == MATCHES:
            try:
                pattern_of(values[0])
            except ValueError as error:
                raise fail(f"column {column!r}: {error}", Mistake) from error
        if not is_decided:
            found.append(Condition(field=pa.field(name, pa.null()), operator=operator, given=tuple(values)))
            continue
        if name not in known:
            nearest = nearest_match(name, known)
            meant = f"; did you mean {nearest!r}?" if nearest else ""
            raise fail(f"{column!r} is no column of the stream as it arrives{meant}")
        field = mapping.arriving.schema.field(name)
        if operator == UNIQUE:
            from syncblocks.connectors.arrow.fingerprints import has_fingerprint

            if not has_fingerprint(field.type):
                raise fail(f"`unique`: column {column!r} is {type_text(field.type)}, whose values cannot be compared")
            found.append(Condition(field=field, operator=operator))
            continue
        try:
            found.append(condition_of(field, operator, values))
        except ValueError as error:
            shown = ", ".join(map(repr, values))
            raise fail(f"column {column!r} is {type_text(field.type)}, and {shown} does not fit: {error}") from error
    return tuple(found)


def length_checks(mapping: ColumnMapping, lengths: Mapping[str, int], *, is_decided: bool) -> tuple[Condition, ...]:
    """Return the checks of columns whose type says how many characters their texts have.

    Args:
        mapping: of the stream's columns.
        lengths: by the names of columns as they arrive.
        is_decided: no function of a transformer decides the columns.
    """
    if not lengths:
        return ()
    from syncblocks.connectors.filters import condition_of

    schema = mapping.arriving.schema
    fields = [schema.field(name) if is_decided else pa.field(name, pa.null()) for name in lengths]
    return tuple(
        condition_of(field, "max_length", [length])
        if is_decided
        else Condition(field=field, operator="max_length", given=(length,))
        for field, length in zip(fields, lengths.values(), strict=True)
    )


__all__ = ["length_checks", "value_checks"]

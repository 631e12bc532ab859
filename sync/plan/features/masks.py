"""The masks of a stream: what they cover, and which settings need the values that they hide. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from syncblocks.connectors.arrow.flatten import names_of
from syncblocks.connectors.field_facts import facts_of
from syncblocks.connectors.read_spec import HASH, MaskRule, Masks
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace

from ...config import Pipeline, exact_name
from ...config.nested import nested_levels
from ..options import OPTIONS, Masking, columns_of
from ..selected_stream import Failer, SelectedStream

_CALLED = re.compile(r"\w+\((.+)\)")


def masks_of(
    pipeline: Pipeline, stream: Stream, settings: Mapping[str, Any], keys: Sequence[str], fail: Failer
) -> Masks | None:
    """Return the masks of a stream with `columns: {mask: ...}`; None: its table has no such columns.

    Args:
        pipeline: the pipeline file.
        stream: as the source offers it.
        settings: of its entries in the file, without the catalog file's.
        keys: its key.
        fail: makes the error of a setting.

    Raises:
        ConfigError: a named column is gone, or a masked one is needed as it is.
    """
    said = settings["columns"].mask
    rules = tuple(MaskRule(column=each.column, how=each.how, kept=each.kept) for each in said)
    if stream.unreadable:
        return None
    names = stream.schema.names
    known = {name for field in stream.schema for name in names_of(field)}
    for rule in rules:
        if (name := exact_name(rule.column)) is not None and name not in known:
            raise fail(
                "columns",
                f"mask: the stream has no column {name!r}; was it renamed? If only some streams of the entry have it, "
                f"write a glob, such as {name[:-1] + '[' + name[-1] + ']'!r}",
                names,
                name,
            )
    from syncblocks.connectors.arrow.masking import WITHIN, rule_of  # its kernels take time to load

    if nested_levels(pipeline, stream.name):
        rules = tuple(each for rule in rules for each in (rule, replace(rule, column=f"{rule.column}{WITHIN}")))
    masks = Masks(rules=rules, key=(pipeline.mask_key or "").encode())
    masked = {name: found for name in names if (found := rule_of(masks, name)) is not None}
    if not masked and all(facts_of(field).native_system for field in stream.schema):
        return None  # a table gets no new columns while it is read
    if shown := next((f.name for f in stream.schema if f.name in masked and facts_of(f).in_path), ""):
        raise fail(
            "columns",
            f"mask: {shown!r} is made of names of folders, which messages and the ledger show: exclude it, or name the "
            "folders otherwise",
        )
    _refuse_needed(stream, settings, masked, fail)
    named = {*keys, *(column for _, columns in _named(settings, Masking.HASHED) for column in columns)}
    if weak := next((name for name in masked if name in named and masked[name].how != HASH), ""):
        raise fail(
            "columns",
            f"mask: {weak!r} is of the key, and `{masked[weak]}` would make one of several records: mask it by `hash`",
        )
    return masks


def is_masked(masks: Masks | None, column: str) -> bool:
    """Tell whether a column of the source is masked."""
    if masks is None:
        return False
    from syncblocks.connectors.arrow.masking import rule_of  # its kernels take time to load

    return rule_of(masks, column) is not None


def refuse_masked_folders(pipeline: Pipeline, stream: SelectedStream, masks: Masks, names: Mapping[str, str]) -> None:
    """Refuse a masked column that the destination makes names of folders from, which the ledger shows.

    Args:
        pipeline: the pipeline file.
        stream: the selected stream.
        masks: its masks.
        names: column of the source -> what it is called as it arrives.

    Raises:
        ConfigError: there is one.
    """
    folders = folder_columns(pipeline)
    if shown := next((name for name in masks.fields if names.get(name, name) in folders), ""):
        raise pipeline.error(
            (*stream.policy.location, "columns"),
            f"stream {stream.name!r}: mask: {shown!r} is masked, and `partition_by` of the destination makes names of "
            "folders of it, which messages and the ledger show: take one of them out",
        )


def folder_columns(pipeline: Pipeline) -> set[str]:
    """Return the columns of which the destination makes folders."""
    said = (pipeline.destination.config or {}).get("partition_by")
    return set(_columns(map(str, said))) if isinstance(said, list) else set()


def _refuse_needed(stream: Stream, settings: Mapping[str, Any], masked: Collection[str], fail: Failer) -> None:
    own = (("bookmark_properties", stream.read.bookmark_properties),)  # a tap's, which its STATE holds
    for key, columns in (*_named(settings, Masking.NONE), *own):
        if needed := next((name for name in columns if name in masked), ""):
            raise fail(
                "columns",
                f"mask: {needed!r} is masked, and `{key}` names it, which needs its values as they are",
                alone=bool(settings.get(key)),
            )


def _named(settings: Mapping[str, Any], masking: Masking) -> Iterator[tuple[str, list[str]]]:
    """Yield the settings of whose columns a mask may do so much, and these columns."""
    found = (key for key, option in OPTIONS.items() if option.masking is masking)
    yield from ((key, list(_columns(settings.get(key)))) for key in found)


def _columns(said: Any) -> Iterator[str]:
    """Yield the columns that a setting names, also as `year(at)`."""
    for name in columns_of(said):
        called = _CALLED.fullmatch(name)
        yield called[1] if called else name


__all__ = ["folder_columns", "is_masked", "masks_of", "refuse_masked_folders"]

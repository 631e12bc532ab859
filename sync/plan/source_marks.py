"""The source in a ledger row: with marks of the naming, the query, the filter and the masks of the stream. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from hashlib import blake2b

from syncblocks.connectors.read_spec import RANGE
from syncblocks.connectors.stream import Stream

from ..config.naming import KEEP
from .policy import Configured

#: Behind the source of a ledger row: how its columns are named, down to which level objects are flattened, and marks
#: of query, filter and masks of its stream.
_NAMING, _NESTED, _QUERY, _WHERE, _MASKS = "?naming=", "?nested=", "?query=", "?where=", "?masks="
_MARKS = re.compile(
    r"(\?naming=(?P<naming>\w+))?(\?nested=(?P<nested>[0-9]+))?(\?query=(?P<query>[0-9a-f]{16}))?"
    r"(\?where=(?P<where>[0-9a-f]{16}))?(\?masks=(?P<masks>[0-9a-f]{16}))?$"
)


def source_of(source: str, stream: Configured) -> str:
    """Return what the ledger keeps as the source of a stream: with its naming, `nested`, and marks of what is read."""
    offered = stream.stream
    naming = "" if stream.policy.naming == KEEP else f"{_NAMING}{stream.policy.naming}"
    nested = f"{_NESTED}{stream.policy.nested}" if stream.policy.nested else ""
    asked = json.dumps([offered.query, *stream.policy.query_said]) if stream.policy.query_said else offered.query
    query = f"{_QUERY}{_mark(asked)}" if asked else ""
    said = sorted(
        json.dumps([each.field.name, each.operator, each.of_interval or sorted(map(json.dumps, each.given))])
        for each in offered.read.where
        if each.of_interval != RANGE  # of each run another one: it says what is written, not what the table holds
    )
    where = f"{_WHERE}{_mark(json.dumps(said))}" if said else ""
    return f"{source}{naming}{nested}{query}{where}{masks_mark(offered)}"


def masks_mark(stream: Stream) -> str:
    """Return the mark of a stream's masks and their key; empty: no column is masked."""
    if stream.read.masks is None:
        return ""
    from syncblocks.connectors.arrow.masking import mark_of_masks  # its kernels take time to load

    said = mark_of_masks(stream.read.masks, stream.schema.names)
    return f"{_MASKS}{_mark(said)}" if said else ""


def _mark(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def unmarked(source: str) -> str:
    """Return the source of a ledger row without its marks."""
    return _MARKS.sub("", source, count=1)


def place_mark(identity: str) -> str:
    """Return what stands behind a place whose secrets are masked, and tells it from others."""
    return f"#{blake2b(identity.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}"


def is_of(source: str, sources: Collection[str]) -> bool:
    """Tell whether a ledger row names one of these sources, with its secrets or with what was masked then."""
    place = unmarked(source)
    return place in sources or any(place.endswith(f" {place_mark(each)}") for each in sources)


def _marks(source: str) -> dict[str, str | None]:
    found = _MARKS.search(source)
    assert found is not None, "it matches nothing at all, too"
    return found.groupdict()


def naming_of(source: str) -> str:
    return _marks(source)["naming"] or KEEP


def nested_of(source: str) -> int:
    return int(_marks(source)["nested"] or 0)


WORDS = {"query": "the query", "where": "the filter (`where`)", "masks": "the masks (`columns: {mask}`, `mask_key`)"}


def altered(before: str, now: str) -> list[str]:
    """Return what of a stream is not what it was, by its source in the ledger: keys of `WORDS`."""
    then, since = _marks(before), _marks(now)
    return [name for name in WORDS if then[name] != since[name]]


__all__ = ["WORDS", "altered", "is_of", "masks_mark", "naming_of", "nested_of", "place_mark", "source_of", "unmarked"]

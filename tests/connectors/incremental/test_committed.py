"""Which records at a bookmark are sent again: every history of three keys and three values, against plain Python."""

from __future__ import annotations

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.incremental.bookmarks import BOUNDARY, without_records
from syncblocks.connectors.incremental.checkpoints import MANY_HASHES, PENDING, incremental
from syncblocks.connectors.incremental.committed import CommittedVersions
from syncblocks.connectors.incremental.hashes import BY_VALUE, forms, record_hashes
from syncblocks.connectors.read_spec import NullBookmarks
from syncblocks.connectors.stream import Bookmark, Checkpoint, Stream
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.incremental.bookmark_runs import SCHEMA, batch, hash_count, run, stream

KEYS, VALUES = (1, 2, 3), ("A", "B", "C")
#: A record: its key and its value.
Record = tuple[int, str]
KEYED = replace(stream(), key_properties=("id",))
MERGED = replace(KEYED, read=replace(KEYED.read, may_repeat=True))
KINDS = {"merge": MERGED, "append with keys": KEYED, "append without keys": stream()}


class Oracle:
    """What the contract says: the last committed version of each key, or how often each record was committed."""

    def __init__(self, committed: Iterable[Record] = (), *, is_keyed: bool) -> None:
        self.is_keyed = is_keyed
        self.committed: dict[int, str] | Counter[Record] = dict(committed) if is_keyed else Counter(committed)

    def new(self, source: Sequence[Record]) -> list[Record]:
        if isinstance(self.committed, Counter):
            return list((Counter(source) - self.committed).elements())
        return [(key, value) for key, value in source if self.committed.get(key) != value]

    def after(self, sent: Iterable[Record]) -> Oracle:
        before = self.committed
        known = list(before.elements()) if isinstance(before, Counter) else list(before.items())
        return Oracle([*known, *sent], is_keyed=self.is_keyed)

    def state(self) -> tuple[Any, ...]:
        return tuple(sorted(self.committed.items()))


@pytest.mark.parametrize("kind", KINDS)
def test_every_history_of_three_runs(kind: str) -> None:
    """Of the pure component: what was met again, what is new, and what still may come is the next run's."""
    is_keyed, is_merged = bool(KINDS[kind].key_properties), KINDS[kind].read.may_repeat
    states = [list(zip(KEYS, values, strict=True)) for values in product(VALUES, repeat=3)]
    all_may_be = pa.array([True] * len(KEYS))

    def go_on(oracle: Oracle, versions: list[tuple[int | None, Any]], history: list[list[Record]]) -> None:
        for source in states:
            found = [(key if is_keyed else None, (key, value)) for key, value in source]
            committed = CommittedVersions(versions, is_keyed=is_keyed, is_merged=is_merged)
            is_new = committed.are_new(found, all_may_be)
            sent = [record for record, is_sent in zip(source, is_new, strict=True) if is_sent]
            assert sent == oracle.new(source), [*history, source]
            if len(history) < 2:
                kept = [*found, *committed.unread(is_complete=True)]
                go_on(oracle.after(sent), kept, [*history, source])

    go_on(Oracle(is_keyed=is_keyed), [], [])


def events(
    of: Stream, source: Sequence[Record], bookmark: Bookmark | None, *, is_ordered: bool
) -> list[tuple[list[Record], Bookmark]]:
    """Return the checkpoints of a run: what was sent before each, and its bookmark."""
    sent: list[Record] = []
    found = []
    batches = [batch([(key, 7, value)]) for key, value in source]
    for event in incremental(of, batches, bookmark, is_ordered=is_ordered, checkpoint_records=1):
        if isinstance(event, Checkpoint):
            found.append((list(sent), json.loads(json.dumps(event.bookmark))))
        else:
            assert isinstance(event, pa.RecordBatch)
            sent += [(record["id"], record["b"]) for record in event.to_pylist()]
    return found


def sources(*, is_keyed: bool) -> list[list[Record]]:
    """All that can stand in the source: two keys with a value or none; or up to two of each of two records."""
    if is_keyed:
        chosen: Any = product((*VALUES, None), repeat=2)
        return [[(key, value) for key, value in zip(KEYS, each, strict=False) if value is not None] for each in chosen]
    return [[(1, "A")] * some + [(1, "B")] * others for some, others in product(range(3), repeat=2)]


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_history_of_any_length_with_deletions_and_crashes(kind: str, is_ordered: bool) -> None:
    """All bookmarks that can be reached, and from each of them all that the source can hold next.

    A run may die after any of its checkpoints: what was sent before it is committed, the rest is not.
    """
    of, is_keyed = KINDS[kind], bool(KINDS[kind].key_properties)
    waiting: list[tuple[Bookmark | None, Oracle]] = [(None, Oracle(is_keyed=is_keyed))]
    seen = set()
    while waiting:
        bookmark, oracle = waiting.pop()
        for source in sources(is_keyed=is_keyed):
            marks = events(of, source, bookmark, is_ordered=is_ordered)
            assert sorted(marks[-1][0]) == sorted(oracle.new(source)), (bookmark, oracle.state(), source)
            for sent, mark in marks:
                after = oracle.after(sent)
                place = (json.dumps(mark, sort_keys=True), after.state())
                if place not in seen:
                    seen.add(place)
                    waiting.append((mark, after))
    assert len(seen) >= len(sources(is_keyed=is_keyed))


def boundary(bookmark: Bookmark | None) -> dict[str, Any]:
    assert bookmark is not None
    return dict(bookmark[BOUNDARY])


@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_key_that_an_append_has_twice_doubles_nothing(is_ordered: bool) -> None:
    """An append makes no key: records of one key that stand there side by side are all known again."""
    bookmark, appended = None, []
    for source in ("A", "AB", "BA", "ABA", "ABA", "ABAC", "ABAC"):
        records, marks = run(KEYED, [batch([(1, 7, value) for value in source])], bookmark, is_ordered=is_ordered)
        appended += [value for _, _, value in records]
        bookmark = marks[-1].bookmark
    assert appended == ["A", "B", "A", "C"]


def test_a_merge_ends_with_the_last_of_one_key() -> None:
    bookmark, merged = None, ""
    for source in ("A", "AB", "A", "AB", "ABA", "B"):
        records, marks = run(MERGED, [batch([(1, 7, value)]) for value in source], bookmark, is_ordered=False)
        merged = ([merged] + [value for _, _, value in records])[-1]
        bookmark = marks[-1].bookmark
        assert merged == source[-1]


@pytest.mark.parametrize(
    ("of", "elsewhere"),
    [
        (replace(MERGED, read=replace(MERGED.read, lookback=5)), (1, 4, "B")),
        (replace(MERGED, read=replace(MERGED.read, null_bookmarks=NullBookmarks.ALWAYS)), (1, None, "B")),
    ],
    ids=["lookback", "always"],
)
@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_record_that_was_sent_from_elsewhere_goes_back_to_the_bookmark(
    of: Stream, elsewhere: tuple[Any, ...], is_ordered: bool
) -> None:
    """From below the bookmark by a `lookback`, or from none at all."""
    at, other = (1, 7, "A"), (2, 7, "x")
    _, marks = run(of, [batch([at, other])], is_ordered=is_ordered)
    records, marks = run(of, [batch([elsewhere, other])], marks[-1].bookmark, is_ordered=is_ordered)
    assert records == [elsewhere]
    records, marks = run(of, [batch([at, other])], marks[-1].bookmark, is_ordered=is_ordered)
    assert records == [at]
    assert run(of, [batch([at, other])], marks[-1].bookmark, is_ordered=is_ordered)[0] == []


def test_a_merge_keeps_no_more_hashes_than_before() -> None:
    """Those of records that are gone go first: sending them again does no harm."""
    many = MANY_HASHES // 2 + 1
    _, marks = run(MERGED, [batch([(n, 7, "A") for n in range(many)])])
    _, marks = run(MERGED, [batch([(n, 7, "A") for n in range(many, 2 * many)])], marks[-1].bookmark)
    assert hash_count(marks[-1]) == many
    assert run(MERGED, [batch([(n, 7, "A") for n in range(many, 2 * many)])], marks[-1].bookmark)[0] == []


# Bookmarks of earlier releases: hashes of all versions that were ever committed, and of an append their keys


def of_before(*versions: Record, keys: bool) -> Bookmark:
    """Return what stood in a ledger: the records of the last run first."""
    records = batch([(key, 7, value) for key, value in versions])

    def packed(columns: Sequence[str]) -> str:
        return b64encode(b"".join(record_hashes(records, columns, by_value=True))).decode()

    kept: dict[str, Any] = {"columns": SCHEMA.names, "hashes": packed(SCHEMA.names), BY_VALUE: True}
    if keys:
        shown = forms(SCHEMA, SCHEMA.names)
        kept["keys"] = {"columns": ["id"], "hashes": packed(["id"]), "forms": shown}
    return {"a": 7, BOUNDARY: kept}


def test_a_merge_sends_what_stands_at_a_bookmark_of_before_once_more() -> None:
    """It does not tell which versions were the last ones; merging them again does no harm."""
    records, marks = run(
        MERGED, [batch([(1, 7, "A"), (2, 7, "x")])], of_before((1, "B"), (2, "x"), (1, "A"), keys=False)
    )
    assert records == [(1, 7, "A"), (2, 7, "x")]
    assert run(MERGED, [batch([(1, 7, "A"), (2, 7, "x")])], marks[-1].bookmark)[0] == []


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize("is_ordered", [True, False])
def test_an_append_goes_on_with_a_bookmark_of_before(keys: bool, is_ordered: bool) -> None:
    """Without loss and without doubling, whether it tells the keys or not."""
    bookmark: Bookmark | None = of_before((1, "B"), (2, "x"), (1, "A"), keys=keys)
    appended: list[tuple[Any, ...]] = []
    for value in "BAAB":
        records, marks = run(
            KEYED, [batch([(1, 7, value)]), batch([(2, 7, "x")])], bookmark, is_ordered=is_ordered, checkpoint_records=1
        )
        appended += records
        bookmark = marks[-1].bookmark
    assert appended == [(1, 7, "A"), (1, 7, "B")]


def test_an_append_that_dies_amid_a_bookmark_of_before_doubles_nothing() -> None:
    source = [batch([(key, 7, value)]) for key, value in ((1, "C"), (2, "x"), (3, "y"))]
    start = of_before((1, "A"), (2, "x"), (3, "y"), keys=False)
    _, marks = run(KEYED, source, start, checkpoint_records=1)
    assert len(marks) > 1
    assert [run(KEYED, source, mark.bookmark)[0] for mark in marks] == [[]] * len(marks)


def test_without_keys_a_bookmark_of_before_is_what_it_is_now() -> None:
    (_, (mark,)) = run(stream(), [batch([(1, 7, "A"), (1, 7, "A"), (2, 7, "x")])])
    assert mark.bookmark == of_before((1, "A"), (1, "A"), (2, "x"), keys=False)


def test_the_keys_of_a_bookmark_are_those_of_the_stream() -> None:
    """A stream that was given another key knows an append's records by their hashes, and merges the others again."""
    source = [batch([(1, 7, "A"), (2, 7, "A")])]
    _, marks = run(KEYED, source)
    other = replace(KEYED, key_properties=("b",))
    assert run(other, source, marks[-1].bookmark)[0] == []
    assert len(run(replace(other, read=replace(other.read, may_repeat=True)), source, marks[-1].bookmark)[0]) == 2


def test_a_bookmark_without_records_keeps_what_is_the_sources_own() -> None:
    _, marks = run(MERGED, [batch([(1, 7, "A")])])
    assert without_records(marks[-1].bookmark) == {"a": 7}
    pending = {**boundary(marks[-1].bookmark), PENDING: {"running": [4]}}
    assert without_records({"a": 7, BOUNDARY: pending}) == {"a": 7, BOUNDARY: {PENDING: {"running": [4]}}}
    assert without_records({"a": 7}) == {"a": 7}
    assert without_records(None) is None

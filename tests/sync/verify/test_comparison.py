"""Comparing two sides that are lists: what is asked of them, and what is made of the answers."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncblocks.connectors.checksums import ComparedColumn, Digest, KeyRange, Row, TextForm
from syncblocks.connectors.checksums.sql import read_float
from syncblocks.connectors.compared_values import Key
from syncblocks.sync.verify.comparison import Comparison, compare
from tests.tiers import examples

KEY = (ComparedColumn(name="id", field=pa.field("id", pa.int64()), form=TextForm.INTEGER),)
VALUE = (ComparedColumn(name="v", field=pa.field("v", pa.int64()), form=TextForm.INTEGER),)


class Listed:
    """A side that is a dict of records."""

    def __init__(
        self,
        records: dict[int, int],
        past: set[int] = frozenset(),  # type: ignore[assignment]
        width: int = 1,
    ) -> None:
        self.records, self.past, self.width = records, past, width
        self.asked = self.hashed = self.most = 0

    def _in(self, keys: KeyRange, *, is_bounded: bool = True) -> list[int]:
        low = None if keys.start is None else int(str(keys.start[0]))
        high = None if keys.end is None else int(str(keys.end[0]))
        return sorted(
            key
            for key in self.records
            if (low is None or key >= low) and (high is None or key < high) and not (is_bounded and key in self.past)
        )

    def digests(self, ranges: Sequence[KeyRange]) -> list[Digest]:
        found = [self._in(keys) for keys in ranges]
        self.hashed += sum(map(len, found))
        return [Digest(len(keys), sum(hash((key, self.records[key])) for key in keys)) for keys in found]

    def sample(self, records: int) -> list[Key]:
        found = self._in(KeyRange())
        return [(str(key),) for key in found[:: max(1, len(found) // records)]] if len(found) > 500 else []

    def boundaries(self, ranges: Sequence[tuple[KeyRange, int]]) -> list[list[Key]]:
        return [[(str(key),) for key in self._in(keys)[size::size]] for keys, size in ranges]

    def sizes(self, ranges: Sequence[KeyRange]) -> list[int]:
        return [sum(self.width for _ in self._in(keys, is_bounded=False)) for keys in ranges]

    def rows(self, ranges: Sequence[KeyRange]) -> list[Row]:
        self.most = max(self.most, sum(self.sizes(ranges)))
        self.asked += sum(len(self._in(keys, is_bounded=False)) for keys in ranges)
        return [
            Row(place, (str(key),), (str(self.records[key]),), key in self.past)
            for place, keys in enumerate(ranges)
            for key in self._in(keys, is_bounded=False)
        ]


class Broken(Listed):
    def digests(self, ranges: Sequence[KeyRange]) -> list[Digest]:
        raise OSError("gone")


def compared(left: Listed, right: Listed, *, is_bounded: bool = False) -> Comparison:
    return compare(left, right, KEY, VALUE, is_bounded=is_bounded, interrupt=lambda: None)


@pytest.mark.sampled
@settings(deadline=None, max_examples=examples(50))
@given(
    st.integers(0, 9000),
    st.sets(st.integers(0, 12_000), max_size=30),
    st.sets(st.integers(0, 12_000), max_size=30),
    st.sets(st.integers(0, 12_000), max_size=30),
)
def test_exactly_what_differs_is_named(size: int, gone: set[int], added: set[int], changed: set[int]) -> None:
    source = {key: key * 7 for key in range(size)}
    copy = {key: value for key, value in source.items() if key not in gone} | dict.fromkeys(added - set(source), -1)
    copy |= dict.fromkeys(changed & set(copy) & set(source), -2)
    left, right = Listed(source), Listed(copy)
    found = compared(left, right)
    expected = {(str(key), "missing") for key in set(source) - set(copy)}
    expected |= {(str(key), "extra") for key in set(copy) - set(source)}
    expected |= {(str(key), "different") for key in set(source) & set(copy) if source[key] != copy[key]}
    if found.is_complete:
        assert {(str(each.key[0]), each.kind) for each in found.records} == expected
    else:  # one side has nothing at all in some range
        assert {(str(each.key[0]), each.kind) for each in found.records} <= expected
    assert found.is_equal == (not expected)
    # Every difference lies in a named range, and no two ranges overlap.
    starts = [-1 if each.keys.start is None else int(str(each.keys.start[0])) for each in found.ranges]
    assert starts == sorted(set(starts))
    for key, _ in expected:
        each = found.ranges[bisect.bisect(starts, int(key)) - 1]
        assert each.keys.end is None or int(key) < int(str(each.keys.end[0]))


def test_only_a_small_part_of_the_records_is_looked_at() -> None:
    source = {key: key for key in range(50_000)}
    left, right = Listed(source), Listed(source | {17: 0, 49_999: 0})
    assert len(compared(left, right).records) == 2
    assert left.asked <= 2000


def test_few_differences_make_few_records_be_hashed_again() -> None:
    source = {key: key for key in range(50_000)}
    left, right = Listed(source), Listed(source | dict.fromkeys(range(17, 50_000, 5_000), -1))
    found = compared(left, right)
    assert (len(found.records), found.source.records, found.destination.records) == (10, 50_000, 50_000)
    assert max(left.hashed, right.hashed) <= 1.2 * 50_000
    assert left.asked <= 10_000


@pytest.mark.parametrize("width", [100, 3_000])
def test_records_are_compared_in_steps_of_so_many_bytes(width: int) -> None:
    source = {key: key for key in range(5_000)}
    copy = source | dict.fromkeys(range(7, 5_000, 500), -1)
    left, right = Listed(source, width=width), Listed(copy, width=width)
    found = compare(left, right, KEY, VALUE, is_bounded=False, most_bytes=20_000, interrupt=lambda: None)
    assert (len(found.records), found.is_complete) == (10, True)
    assert 0 < max(left.most, right.most) <= 20_000


def test_a_record_wider_than_a_step_is_compared_all_the_same() -> None:
    left, right = Listed({1: 1, 2: 2}, width=500), Listed({1: 1, 2: 3}, width=500)
    found = compare(left, right, KEY, VALUE, is_bounded=False, most_bytes=100, interrupt=lambda: None)
    assert [each.key for each in found.records] == [("2",)]
    assert left.most == 500


def test_what_has_changed_since_is_no_difference() -> None:
    source = {key: key for key in range(3000)}
    left, right = Listed(source | {5: 0, 6: 1}, past={5, 6}), Listed(source)
    found = compared(left, right, is_bounded=True)
    assert (found.is_equal, found.changed_since) == (True, 2)


def test_where_one_side_fails_the_other_is_interrupted() -> None:
    calls: list[str] = []
    with pytest.raises(OSError, match="gone"):
        compare(Listed({}), Broken({}), KEY, VALUE, is_bounded=False, interrupt=lambda: calls.append("interrupted"))
    assert calls == ["interrupted"]


@given(st.floats(allow_nan=False))
def test_a_float_in_digits_and_exponent_reads_back(value: float) -> None:
    mantissa, _, exponent = f"{value:.17e}".partition("e")
    sign, digits = ("-", mantissa[1:]) if mantissa.startswith("-") else ("", mantissa)
    if value in (float("inf"), float("-inf")):
        assert read_float(str(value)) == value
    else:
        assert read_float(f"{sign}{digits.replace('.', '')}e{int(exponent) + 1}") == value

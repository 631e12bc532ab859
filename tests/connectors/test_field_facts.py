"""Facts of columns: how they are spelled in Arrow's metadata, and what the former constants say."""

from __future__ import annotations

import pyarrow as pa
import pytest

from syncblocks.connectors import stream
from syncblocks.connectors.field_facts import FieldFacts, Precision, TypeOrigin, facts_of, with_facts

FIELD = pa.field("c", pa.string())

#: Facts, and the metadata that files, workers and runs left open have of them.
SPELLED = [
    (FieldFacts(native_type="inet"), {b"native_type": b"inet"}),
    (FieldFacts(native_system="postgres"), {b"native_system": b"postgres"}),
    (FieldFacts(read_as="base"), {b"read_as": b"base"}),
    (FieldFacts(type_name="public.mood"), {b"type_name": b"public.mood"}),
    (FieldFacts(column_type="jsonb"), {b"column_type": b"jsonb"}),
    (FieldFacts(relaxed=True), {b"relaxed": b""}),
    (FieldFacts(needed=True), {b"needed": b""}),
    (FieldFacts(becomes_text=True), {b"becomes_text": b""}),
    (FieldFacts(origin=TypeOrigin.DECLARED), {b"said": b"1"}),
    (FieldFacts(origin=TypeOrigin.GUESSED), {b"guessed": b"1"}),
    (FieldFacts(origin=TypeOrigin.GUESSED, whole=True), {b"guessed": b"whole"}),
    (FieldFacts(origin=TypeOrigin.GUESSED, moments=True), {b"guessed": b"moments"}),
    (FieldFacts(origin=TypeOrigin.GUESSED, unseen=True), {b"unseen": b"1"}),
    (FieldFacts(origin=TypeOrigin.TABLE), {b"decided": b"1"}),
    (FieldFacts(origin=TypeOrigin.TABLE, unseen=True), {b"decided": b"1", b"unseen": b"1"}),
    (FieldFacts(precision=Precision.UNDECIDED), {b"undecided": b"1"}),
    (FieldFacts(precision=Precision.INEXACT), {b"undecided": b"inexact"}),
    (FieldFacts(precision=Precision.LOOK), {b"undecided": b"look"}),
    (FieldFacts(precision=Precision.WIDENS), {b"widens": b"1"}),
    (FieldFacts(notice="caf\u00e9"), {b"notice": b"caf\xc3\xa9"}),
    (FieldFacts(path=("a", "b")), {b"flattened": b'["a", "b"]'}),
    (FieldFacts(labels=("a", "\u00e9")), {b"enum_labels": rb'["a", "\u00e9"]'}),
    (FieldFacts(unknown_type=True), {b"unknown_type": b"1"}),
    (FieldFacts(quoted=True), {b"is_quoted": b"1"}),
    (FieldFacts(of_file=True), {b"of_file": b""}),
    (FieldFacts(in_path=True), {b"in_path": b"1"}),
    (FieldFacts(is_row=True), {b"is_row": b""}),
    (FieldFacts(computed=True), {b"computed": b""}),
    (FieldFacts(computed=True, stays_computed=True), {b"computed": b"kept"}),
]


@pytest.mark.parametrize(("facts", "metadata"), SPELLED, ids=[str(metadata) for _, metadata in SPELLED])
def test_facts_are_spelled_as_ever_and_are_read_back(facts: FieldFacts, metadata: dict[bytes, bytes]) -> None:
    made = with_facts(FIELD, facts)
    assert made.metadata == metadata
    assert facts_of(made) == facts
    assert facts_of(FIELD.with_metadata(metadata)) == facts
    assert not with_facts(made, FieldFacts()).metadata


def test_other_metadata_and_facts_stay() -> None:
    field = with_facts(FIELD.with_metadata({b"mine": b"\xff", b"relaxed": b"1"}), needed=True)
    assert field.metadata == {b"mine": b"\xff", b"relaxed": b"1", b"needed": b""}
    assert with_facts(field, needed=False, relaxed=False).metadata == {b"mine": b"\xff"}


def test_a_column_of_which_nothing_new_is_known_is_itself() -> None:
    assert with_facts(FIELD, needed=False) is FIELD


def test_a_list_that_is_none_says_nothing() -> None:
    for text in (b"\xff", b"[", b"[1]", b"[" * 10_000):
        assert facts_of(FIELD.with_metadata({b"enum_labels": text})) == FieldFacts()


def test_a_misspelt_fact_is_an_error() -> None:
    with pytest.raises(TypeError, match="needs"):
        with_facts(FIELD, needs=True)


@pytest.mark.parametrize(("name", "fact"), sorted(stream._FACTS.items()))
def test_a_former_constant_names_the_fact(name: str, fact: str) -> None:
    with pytest.raises(AttributeError, match=rf"\.{name} is gone: use field_facts\.facts_of\(field\)\.{fact}, which"):
        getattr(stream, name)
    assert fact in FieldFacts.__struct_fields__


def test_a_former_function_names_the_new_one() -> None:
    with pytest.raises(AttributeError, match=r"notices_of is gone: use field_facts\.notices_of$"):
        _ = stream.notices_of  # type: ignore[attr-defined]  # what is tested


def test_any_other_name_is_unknown_as_ever() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = stream.nothing  # type: ignore[attr-defined]  # what is tested

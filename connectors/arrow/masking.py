"""Masks of columns: their values become keyed hashes, their last characters, or NULL.

A hash is HMAC-SHA-256 of the value's canonical text, so that one value has one hash, whatever type its column has.
"""

from __future__ import annotations

import hmac
import json
from array import array
from collections.abc import Mapping
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

import pyarrow as pa

from ..field_facts import Precision, TypeOrigin, facts_of, with_facts
from ..read_spec import HASH, KEEP_LAST, MaskRule, Masks
from ..stream import Stream
from ..struct_helpers import replace
from . import compute as pc
from .decimals import plain_number
from .digits import is_number_in_text
from .far_times import far_texts, has_far_times
from .fidelity import as_text
from .flatten import SEPARATOR
from .text import SPECIAL

#: End of a rule for the columns that an object is made of: `a__*`.
WITHIN = f"{SEPARATOR}*"

#: Digits of a hash.
_DIGITS = 64


def rule_of(masks: Masks | None, column: str) -> MaskRule | None:
    """Return what masks a column: the rule of its name, else the first glob that matches."""
    rules = () if masks is None else masks.rules
    exact = next((rule for rule in rules if rule.column == column), None)
    return exact or next((rule for rule in rules if fnmatchcase(column, rule.column)), None)


def masked_schema(schema: pa.Schema, masks: Masks | None) -> pa.Schema:
    """Return a schema whose masked columns are texts; nothing of what was seen in their values stays."""
    if masks is None:
        return schema
    return pa.schema([_masked_field(field, rule_of(masks, field.name)) for field in schema], schema.metadata)


def _masked_field(field: pa.Field, rule: MaskRule | None) -> pa.Field:
    if rule is None:
        return field
    return pa.field(field.name, pa.string(), field.nullable or rule.how not in (HASH, KEEP_LAST))


def masked_stream(stream: Stream) -> Stream:
    """Return a stream as it leaves its masks, which keep how the source has the masked columns."""
    masks = stream.read.masks
    if masks is None:
        return stream
    found = {field.name: _read_field(field) for field in stream.schema if rule_of(masks, field.name)}
    masks = replace(masks, fields={**masks.fields, **found})
    return replace(stream, schema=masked_schema(stream.schema, masks), read=replace(stream.read, masks=masks))


def unmasked_stream(stream: Stream) -> Stream:
    """Return a masked stream as its source is to read it."""
    if stream.read.masks is None:
        return stream
    fields = [stream.read.masks.fields.get(field.name, field) for field in stream.schema]
    return replace(stream, schema=pa.schema(fields, stream.schema.metadata))


def _read_field(field: pa.Field) -> pa.Field:
    """Return a masked column as it is read: where its type was guessed, as it is written, whatever was seen."""
    facts = facts_of(field)
    if not (facts.origin is TypeOrigin.GUESSED or facts.unseen or facts.is_undecided):
        return field
    if is_number_in_text(field):
        return with_facts(field, origin=TypeOrigin.SOURCE, unseen=False, whole=False, precision=Precision.KNOWN)
    text = pa.field(field.name, pa.string(), field.nullable)
    return with_facts(text, origin=TypeOrigin.DECLARED, path=facts.path, plain_numbers=True)


def masked(batch: pa.RecordBatch, masks: Masks | None) -> pa.RecordBatch:
    """Return a batch with masked values.

    Raises:
        FatalConnectorError: a value has no text form; the message does not show the value.
    """
    if masks is None:
        return batch
    schema = masked_schema(batch.schema, masks)
    columns = [
        column if (rule := rule_of(masks, field.name)) is None else _masked_column(column, field, rule, masks.key)
        for column, field in zip(batch.columns, batch.schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema) if columns else batch


def _masked_column(column: pa.Array, field: pa.Field, rule: MaskRule, key: bytes) -> pa.Array:
    if rule.how not in (HASH, KEEP_LAST):
        return pa.nulls(len(column), pa.string())
    if pa.types.is_dictionary(column.type):
        values = field.with_type(column.type.value_type)
        return _masked_column(column.dictionary, values, rule, key).take(column.indices)
    texts = canonical_text(column, field)
    return _hashed(texts, key) if rule.how == HASH else _last_kept(texts, rule.kept)


def masked_value(value: Any, rule: MaskRule, key: bytes) -> str | None:
    """Mask one JSON value of a rejected record."""
    if value is None:
        return None
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # it may be wider than any column
    column = pa.array([value])
    found = _masked_column(column, pa.field("", column.type), rule, key)[0].as_py()
    return None if found is None else str(found)


def canonical_text(column: pa.Array, field: pa.Field) -> pa.Array:
    """Write values as texts that depend on the value alone: numbers without exponent or trailing zeros, ISO times.

    Args:
        column: of any type.
        field: its field, which tells numbers that stand in texts.
    """
    kind, types = column.type, pa.types
    if types.is_float16(kind):
        column = column.cast(pa.float32())
    texts = far_texts(column) if has_far_times(column) else as_text(column, field.name)
    if types.is_floating(kind) or is_number_in_text(field):
        return _without_zeros(_plain_numbers(texts))
    has_zeros = types.is_decimal(kind) or types.is_timestamp(kind) or types.is_time(kind)
    return _without_zeros(texts) if has_zeros else texts


def _without_zeros(texts: pa.Array) -> pa.Array:
    """Cut off zeros at the end of fractions, and signs of zeros."""
    texts = pc.replace_substring_regex(texts, r"(\.[0-9]*?)0+(Z?)$", r"\1\2")
    texts = pc.replace_substring_regex(texts, r"\.(Z?)$", r"\1")
    return pc.replace_substring_regex(texts, r"^-0$", "0")


def _plain_numbers(texts: pa.Array) -> pa.Array:
    """Write numbers without exponents, and those that are no numbers as JSON has them."""
    odd = pc.fill_null(pc.match_substring_regex(texts, "[a-zA-Z]"), False)
    if not pc.any(odd).as_py():
        return texts
    found = [SPECIAL.get(text) or plain_number(text) for text in texts.filter(odd).to_pylist()]
    return pc.replace_with_mask(texts, odd, pa.array(found, pa.string()))


def _hashed(texts: pa.Array, key: bytes) -> pa.Array:
    """Hash each distinct text once, out of the buffers that hold them."""
    encoded = texts.dictionary_encode()
    values = encoded.dictionary
    count = len(values)
    if not count:
        return pa.nulls(len(texts), pa.string())
    _, places, data = values.buffers()
    ends = memoryview(places).cast("B")[: 4 * (values.offset + count + 1)].cast("i")[values.offset :]
    content = memoryview(data if data is not None else b"").cast("B")
    digests = b"".join(hmac.digest(key, content[start:end], "sha256") for start, end in pairwise(ends))
    offsets = array("i", range(0, _DIGITS * count + 1, _DIGITS)).tobytes()
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(digests.hex().encode())]
    return pa.Array.from_buffers(pa.string(), count, buffers).take(encoded.indices)


def _last_kept(texts: pa.Array, kept: int) -> pa.Array:
    """Keep the last characters; of a text with fewer than twice as many, none."""
    length = pc.utf8_length(texts)
    is_long = pc.greater_equal(length, pc.constant(2 * kept, pa.int32()))
    hidden = pc.if_else(is_long, pc.subtract(length, pc.constant(kept, pa.int32())), length)
    stars = pc.binary_repeat(pc.constant("*"), hidden)
    shown = pc.if_else(is_long, pc.utf8_slice_codeunits(texts, -kept), pc.constant(""))
    return pc.binary_join_element_wise(stars, shown, pc.constant(""))


def mark_of_masks(masks: Masks | None, columns: Mapping[str, Any] | Any) -> str:
    """Return a text that differs where the rules that mask some columns differ, or their key; empty: none does."""
    rules = {rule for column in columns if (rule := rule_of(masks, column)) is not None}
    if masks is None or not rules:
        return ""
    # What an object is masked by, its columns `a__b` are: which of both a stream has changes from read to read.
    said = sorted({(rule.column.removesuffix(WITHIN), rule.how, str(rule.kept)) for rule in rules})
    needs_key = any(rule.how == HASH for rule in rules)
    fingerprint = hmac.digest(masks.key, b"syncblocks mask_key", "sha256").hex()[:16] if needs_key else ""
    return json.dumps([said, fingerprint])


__all__ = [
    "WITHIN",
    "canonical_text",
    "mark_of_masks",
    "masked",
    "masked_schema",
    "masked_stream",
    "masked_value",
    "rule_of",
    "unmasked_stream",
]

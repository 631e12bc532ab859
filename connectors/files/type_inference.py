"""Infer the types of text columns: the narrowest type that loses nothing.

A leading zero keeps a column text. Integers past int64 become decimals, and so do fractions that a double would round.
Numbers out of the range of doubles stay text, also numbers with too many digits beside others with an exponent. Times
with an offset become UTC. A later value that does not fit is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.compute import constant
from ..arrow.text import from_text
from ..field_facts import FieldFacts, Precision, TypeOrigin, with_facts
from .odd_values import OddValues, without_empty

_PATTERNS = {
    "bool": r"^(?:true|false|True|False|TRUE|FALSE)$",
    "integer": r"^(?:0|-?[1-9][0-9]*)$",
    "number": r"^(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|nan|NaN|-?inf|-?Infinity)$",
    "date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    "naive": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?$",
    "zoned": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"
    r"(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)$",
}
#: A date, or a time without a zone.
_DAY_OR_TIME = _PATTERNS["naive"].replace("[T ]", "(?:[T ]").removesuffix("$") + ")?$"

#: A text that is a number as JSON writes it, with at most three digits of exponent.
WRITTEN_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")

_NO_DIGIT = r"^[^0-9]*$"
_FRACTION = r"\.[0-9]*[1-9]"

#: A batch of less is not worth a thread; one of more is not to be held while the next one is parsed.
_THREADED_BYTES = range(1 << 18, 8 << 20)

#: A number with a leading zero, which only text keeps.
LEADING_ZERO = r"^-?0[0-9xX]"

#: Most digits of a decimal that every destination accepts; longer numbers stay text.
MAX_DIGITS = 38

#: Digits that every double keeps.
_DOUBLE_DIGITS = 15

#: Digits of seconds that a time of microseconds has.
_MICRO_DIGITS = 6

#: Digits that tell all doubles apart.
_PRINTED_DIGITS = 17

#: A number that may be out of the range of doubles.
_MAYBE_BEYOND = r"[eE][+-]?[0-9]{3}|^-?[0-9]{300}"


#: A number that a double may not hold exactly: a long integer, or more than the 17 digits that identify a double. A
#: number with an exponent is taken for a measurement.
MAYBE_ROUNDED = r"-?(?:[1-9][0-9]{15,}|(?:0\.0*)?[1-9](?:\.?[0-9]){17,}\.?)"


class Guess:
    """The types that one column can have after the texts seen so far. Empty texts and NULL fit every type."""

    def __init__(self, kinds: frozenset[str] = frozenset(_PATTERNS)) -> None:
        self._alive = set(kinds)
        #: Only NULL was seen.
        self.is_unseen = True
        self._has_seen = False
        self._has_digits = False
        self._has_special = False
        self._is_wide = False
        self._is_lossy = False
        self._is_rounded = False
        self._is_beyond = False
        self._has_exponent = False
        self._has_fraction = False
        self._whole_digits = 0
        self._fraction_digits = 0
        self._second_digits = 0
        self._seen = 0
        #: Once no type is left: the values that are why, and whether all are dates or times without a zone.
        self._odd: OddValues | None = None
        self._are_moments = False

    def add(self, column: pa.Array) -> None:
        """Take more texts (strings, NULL allowed) into account."""
        self.is_unseen = self.is_unseen and column.null_count == len(column)
        if self._has_seen and not self._alive:
            if self._odd is not None:
                column = without_empty(column)
                self._odd.add(column)
                self._are_moments = self._are_moments and _are_days_or_times(column)
            return
        column = without_empty(column)
        if not len(column):
            return
        before, self._has_seen = {*self._alive}, True
        self._narrow(column)
        if not self._alive:
            self._are_moments = (not self._seen or before <= {"date", "naive"}) and _are_days_or_times(column)
            self._odd = OddValues({kind: _PATTERNS[kind] for kind in before}, self._seen)
            self._odd.add(column)
        self._seen += len(column)

    def _narrow(self, column: pa.Array) -> None:
        """Leave only the types that texts have, none of which is empty."""
        column = self._without_plain(column)
        if not len(column):
            return
        for kind in list(_PATTERNS):
            if kind in self._alive and not pc.all(pc.match_substring_regex(column, _PATTERNS[kind])).as_py():
                self._alive.discard(kind)
            elif kind in self._alive and kind in ("bool", "integer", "date", "naive", "zoned"):
                # The patterns exclude each other, except that integers are numbers.
                self._alive &= {kind, "number"} if kind == "integer" else {kind}
        if "integer" in self._alive and not self._is_wide:
            self._is_wide = not _fits(column, pa.int64())
        if "number" in self._alive:
            self._measure(column)
        if "date" in self._alive and not _fits(column, pa.date32()):
            self._alive.discard("date")
        for kind, zone in (("naive", None), ("zoned", "UTC")):
            if kind in self._alive:
                self._measure_seconds(column, kind, zone)

    def type(self) -> pa.DataType:
        """Return the narrowest type; text if none fits, or nothing was seen."""
        if not self._has_seen:
            return pa.string()
        if "bool" in self._alive:
            return pa.bool_()
        if "integer" in self._alive:
            return self._decimal(0) if self._is_wide else pa.int64()
        if "number" in self._alive and self._has_digits:
            if self._is_beyond or (self._has_exponent and self._is_rounded):
                return pa.string()
            if not self._is_lossy or self._has_exponent:
                return pa.float64()
            return pa.string() if self._has_special else self._decimal(self._fraction_digits)
        if "date" in self._alive:
            return pa.date32()
        if "naive" in self._alive or "zoned" in self._alive:
            unit = "ns" if self._second_digits > _MICRO_DIGITS else "us"
            return pa.timestamp(unit, "UTC" if "zoned" in self._alive else None)
        return pa.string()

    def field(self, name: str, nulls: list[str] | None = None, *, is_exact: bool = False) -> pa.Field:
        """Return a field of that type, known as guessed, and as unseen if only NULL was seen.

        Args:
            name: of the column.
            nulls: texts that mean NULL; given: a few values that make it a text are said in its notice.
            is_exact: numbers with fractions become decimals when they are first loaded.
        """
        kind = self.exact_type() if is_exact else self.type()
        unseen = FieldFacts(origin=TypeOrigin.GUESSED, unseen=True)
        facts = unseen if self.is_unseen else self.facts(kind, is_exact=is_exact)
        notice = "" if nulls is None or self._odd is None else self._odd.notice(name, nulls)
        return with_facts(pa.field(name, kind), facts, notice=notice)

    def exact_type(self) -> pa.DataType:
        """Return the type where the first load decides about numbers with fractions, of any number of digits."""
        kind, is_number = self.type(), "number" in self._alive and self._has_digits
        return pa.float64() if is_number and pa.types.is_string(kind) else kind

    def facts(self, kind: pa.DataType, *, is_exact: bool) -> FieldFacts:
        """Return what is known of a field of that type."""
        is_undecided = is_exact and (pa.types.is_floating(kind) or (pa.types.is_decimal(kind) and kind.scale > 0))
        is_inexact = pa.types.is_floating(kind) and pa.types.is_string(self.type())
        undecided = Precision.INEXACT if is_inexact else Precision.UNDECIDED
        return FieldFacts(
            origin=TypeOrigin.GUESSED,
            whole=self._has_digits and not self._has_fraction and not self._are_moments,
            moments=self._are_moments,
            precision=undecided if is_undecided else Precision.KNOWN,
        )

    def _without_plain(self, column: pa.Array) -> pa.Array:
        """Return the texts that the patterns must check.

        Arrow reads and writes numbers and dates in a tenth of a pattern's time: a text that it writes as it read it has
        the type.
        """
        if "integer" in self._alive and self._takes_integers(column):
            return column[:0]
        if "number" in self._alive:
            if self._takes_short_numbers(column):
                return column[:0]
            column = self._without_doubles(column)
        if self._takes_times(column):
            return column[:0]
        if "date" in self._alive and len(column) and _is_same(column, pa.date32()):
            self._alive = {"date"}
            return column[:0]
        return column

    def _takes_integers(self, column: pa.Array) -> bool:
        """Note texts that are all integers which a double keeps; False: there are others."""
        if not _is_same(column, pa.int64()):
            return False
        limits = pc.min_max(column.cast(pa.int64())).as_py()
        largest = max(-limits["min"], limits["max"])
        if largest >= 10**_DOUBLE_DIGITS:
            return False
        self._alive &= {"integer", "number"}
        self._has_digits = True
        self._whole_digits = max(self._whole_digits, len(str(largest)))
        return True

    def _takes_short_numbers(self, column: pa.Array) -> bool:
        """Note texts that are all numbers with a point and so few digits that no double rounds them."""
        if pc.max(pc.binary_length(column)).as_py() > _DOUBLE_DIGITS:
            return False
        try:
            numbers = column.cast(pa.float64())
        except ValueError:
            return False
        odd = pc.or_(pc.equal(column, constant("-0")), pc.invert(pc.is_finite(numbers)))
        for prefix in ("+", ".", "-."):  # what Arrow reads, but no pattern knows
            odd = pc.or_(odd, pc.starts_with(column, prefix))
        odd = pc.or_(odd, pc.ends_with(column, "."))
        if pc.any(odd).as_py() or _has_exponent(column) or has_leading_zero(column) is not None:
            return False
        self._alive &= {"integer", "number"}
        if self._measure_digits(column)[0]:
            self._alive.discard("integer")
        return True

    def _takes_times(self, column: pa.Array) -> bool:
        """Note texts that are all times of microseconds, of one kind; False: there are others."""
        for kind, zone in (("naive", None), ("zoned", "UTC")):
            if kind in self._alive and self._second_digits <= _MICRO_DIGITS and _is_time(column, zone):
                self._alive = {kind}
                return True
        return False

    def _without_doubles(self, column: pa.Array) -> pa.Array:
        """Note texts that are finite doubles in their shortest form; return the others."""
        try:
            numbers = column.cast(pa.float64())
        except ValueError:
            return column
        is_same = pc.and_(pc.equal(numbers.cast(pa.string()), column), pc.is_finite(numbers))
        is_same = pc.and_(is_same, pc.not_equal(column, constant("-0")))  # no integer is -0
        plain = column.filter(is_same)
        if not len(plain):
            return column
        self._alive &= {"integer", "number"}
        fraction_digits, has_exponent = self._measure_digits(plain)
        if fraction_digits or has_exponent:
            self._alive.discard("integer")
        return column.filter(pc.invert(is_same))

    def _measure_digits(self, column: pa.Array) -> tuple[int, bool]:
        """Note the lengths of numbers; return the most digits after a point, and whether there is an exponent."""
        size = pc.binary_length(column)
        point = pc.find_substring(column, ".")
        has_point = pc.greater_equal(point, constant(0))
        whole = pc.subtract(pc.if_else(has_point, point, size), pc.cast(pc.starts_with(column, "-"), pa.int32()))
        fraction = pc.if_else(has_point, pc.subtract(pc.subtract(size, point), constant(1)), constant(0))
        most = pc.max(fraction).as_py()
        has_exponent = _has_exponent(column)
        self._has_digits = True
        self._has_exponent = self._has_exponent or has_exponent
        if not self._has_fraction:
            is_fraction = most and pc.any(pc.match_substring_regex(column, _FRACTION)).as_py()
            self._has_fraction = bool(has_exponent or is_fraction)
        self._whole_digits = max(self._whole_digits, pc.max(whole).as_py())
        self._fraction_digits = max(self._fraction_digits, most)
        return most, has_exponent

    def _decimal(self, scale: int) -> pa.DataType:
        if self._whole_digits + scale > MAX_DIGITS:
            return pa.string()
        return pa.decimal128(MAX_DIGITS, scale)

    def _measure(self, column: pa.Array) -> None:
        special = pc.match_substring_regex(column, _NO_DIGIT)
        self._has_special = self._has_special or bool(pc.any(special).as_py())
        column = column.filter(pc.invert(special))
        if not len(column):
            return
        self._measure_digits(column)
        far = column.filter(pc.match_substring_regex(column, _MAYBE_BEYOND))
        self._is_beyond = self._is_beyond or not _is_double(far)
        if not self._is_lossy:
            long = column.filter(pc.greater(pc.utf8_length(column), constant(_DOUBLE_DIGITS))).to_pylist()
            self._is_lossy = any(map(_is_lossy, long))
        self._is_rounded = self._is_rounded or not keeps_digits(column)

    def _measure_seconds(self, column: pa.Array, kind: str, zone: str | None) -> None:
        point = pc.find_substring(column, ".")
        has_point = pc.greater_equal(point, constant(0))
        digits = pc.if_else(has_point, pc.subtract(pc.binary_length(column), point), constant(0))
        if kind == "zoned":
            matched = pc.extract_regex(column, r"\.(?P<digits>[0-9]+)")
            digits = pc.binary_length(pc.struct_field(matched, "digits"))
            most = pc.max(digits).as_py() or 0
        else:
            most = max(pc.max(digits).as_py() - 1, 0)
        self._second_digits = max(self._second_digits, most)
        if not _fits(column, pa.timestamp("ns" if self._second_digits > _MICRO_DIGITS else "us", zone)):
            self._alive.discard(kind)


class GuessThreads:
    """Has two threads guess the types of the columns of one batch, while the next one is parsed."""

    def __init__(self, guesses: Mapping[str, Guess]) -> None:
        self._guesses = guesses
        self._threads = ThreadPoolExecutor(2, "guess")
        self._pending: Iterator[None] = iter(())

    def __enter__(self) -> GuessThreads:
        return self

    def __exit__(self, *error: object) -> None:
        with self._threads:
            self._wait()

    def add(self, texts: pa.RecordBatch) -> None:
        """Take a batch of texts into account, after the one before it."""
        self._wait()
        if texts.nbytes not in _THREADED_BYTES:
            for name, column in zip(texts.schema.names, texts.columns, strict=True):
                self._guesses[name].add(column)
            return
        guesses = [self._guesses[name] for name in texts.schema.names]
        self._pending = self._threads.map(Guess.add, guesses, texts.columns)

    def _wait(self) -> None:
        for _ in self._pending:
            pass


def is_number(kind: pa.DataType) -> bool:
    """Tell whether a type's values are numbers."""
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def has_leading_zero(column: pa.Array) -> pa.Array | None:
    """Return a mask of the numbers that only text keeps; None: there are none, which is cheap to find."""
    zero = pc.or_(pc.starts_with(column, "0"), pc.starts_with(column, "-0"))
    if not pc.any(pc.match_substring_regex(column.filter(zero), LEADING_ZERO)).as_py():
        return None
    return pc.fill_null(pc.match_substring_regex(column, LEADING_ZERO), constant(False))


def keeps_digits(column: pa.Array) -> bool:
    """Tell whether doubles keep all digits of numbers, given as texts; cheap if no number is long."""
    size = pc.binary_length(column)
    if (pc.max(size).as_py() or 0) <= _DOUBLE_DIGITS:
        return True
    is_fraction = pc.match_substring(column, ".")
    texts = []
    for is_kind, digits in ((is_fraction, _PRINTED_DIGITS + 1), (pc.invert(is_fraction), _DOUBLE_DIGITS)):
        found = column.filter(pc.and_(is_kind, pc.greater(size, constant(digits))))
        # Leading and trailing zeros of a fraction do not count as digits.
        found = pc.ascii_rtrim(found, "0") if is_kind is is_fraction else found
        texts += found.filter(pc.match_substring_regex(found, f"^{MAYBE_ROUNDED}$")).to_pylist()
    return not any(map(is_rounded, texts))


def is_rounded(text: str) -> bool:
    """Tell whether the double of a text has another value than the text."""
    number, kept = Decimal(text), float(text)
    return number not in (Decimal(repr(kept)), Decimal(kept))


def _is_lossy(text: str) -> bool:
    try:
        return Decimal(repr(float(text))) != Decimal(text)
    except ArithmeticError:  # an exponent of 20 digits, which Decimal refuses
        return True


def _is_double(column: pa.Array) -> bool:
    try:
        from_text(column, pa.float64(), is_empty_null=False)
    except ValueError:
        return False
    return True


def _is_same(column: pa.Array, kind: pa.DataType) -> bool:
    """Tell whether all texts are values of a type in the form that Arrow writes."""
    try:
        return bool(pc.all(pc.equal(column.cast(kind).cast(pa.string()), column)).as_py())
    except ValueError:
        return False


def _are_days_or_times(column: pa.Array) -> bool:
    return bool(pc.all(pc.match_substring_regex(column, _DAY_OR_TIME)).as_py())


def _has_exponent(column: pa.Array) -> bool:
    # To ignore the case takes Arrow ten times as long.
    return any(pc.any(pc.match_substring(column, letter)).as_py() for letter in "eE")


def _is_time(column: pa.Array, zone: str | None) -> bool:
    """Tell whether all texts are times with minutes, which Arrow does not demand, and at most six digits of seconds."""
    has_minutes = pc.equal(pc.find_substring(column, ":"), constant(len("2024-01-31T12")))
    return bool(pc.all(has_minutes).as_py()) and _fits(column, pa.timestamp("us", zone))


def _fits(column: pa.Array, kind: pa.DataType) -> bool:
    try:
        column.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True

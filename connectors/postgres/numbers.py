"""Scans all numbers of some columns, in the snapshot that is read: one pass over the table."""

from __future__ import annotations

from collections.abc import Sequence

from ..arrow.digits import Digits
from ..arrow.unbounded_numerics import Numbers
from ..sql.session import Session

#: For one column: most digits before and after the point, without trailing zeros, and whether NaN or an infinity
#: occurs. Only the greatest and the least number can have the most digits before the point; NaN sorts above all.
_FACTS = """coalesce(length(trunc(greatest(abs(max({column}) filter (where {is_number})),
    abs(min({column}) filter (where {is_number}))))::text), 1),
  coalesce(max(scale({column})), 0), coalesce(max(min_scale({column})), 0), bool_or(not {is_number}),
  coalesce(greatest(max({column}), -min({column})) < 1, false)"""

_SPECIAL = (
    """select {column}::text, count(*) from {relation} as t where not {is_number} group by 1 order by 2 desc, 1"""
)


def look(session: Session, relation: str, columns: Sequence[str]) -> list[Numbers]:
    """Scan columns of type `numeric`.

    Args:
        session: in the transaction that reads.
        relation: the text after FROM.
        columns: quoted names.
    """
    named = [f"t.{column}" for column in columns]
    facts = ", ".join(_FACTS.format(column=each, is_number=_is_number(each)) for each in named)
    (row,) = session.query(f"select {facts} from {relation} as t")
    found = []
    for place, column in enumerate(named):
        whole, fraction, least, is_special, is_small = row[place * 5 : place * 5 + 5]
        special = []
        if is_special:
            sql = _SPECIAL.format(column=column, is_number=_is_number(column), relation=relation)
            special = [(str(value), int(count)) for value, count in session.query(sql)]
        digits = Digits(0 if is_small else int(whole), int(fraction), int(least))
        found.append(Numbers(digits=digits, special=tuple(special)))
    return found


def _is_number(column: str) -> str:
    """Write the condition; before PostgreSQL 14 no number is infinite, and the word cannot be cast."""
    return f"({column}::text !~ '[a-zA-Z]')"


__all__ = ["look"]

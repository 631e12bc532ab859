"""The values of structs as columns, in DuckDB's SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa

from ..arrow.flatten import path_of
from ..sql.identifiers import literal

#: Key of a stream's locator: column -> its expression over the table `t`.
FLAT = "flat"


def flat_columns(schema: pa.Schema, quote: Callable[[str], str]) -> dict[str, str]:
    """Return the select expression of each column."""
    found = {}
    for field in schema:
        first, *rest = path_of(field)
        expression = f"t.{quote(first)}"
        for name in rest:
            expression = f"struct_extract({expression}, {literal(name)})"
        found[field.name] = expression
    return found


def flat_relation(columns: Mapping[str, str], whole: str, quote: Callable[[str], str]) -> str:
    """Write the subquery that selects the columns from a table or a query."""
    selected = ", ".join(f"{expression} as {quote(name)}" for name, expression in columns.items())
    return f"(select {selected} from {whole} as t)"


__all__ = ["FLAT", "flat_columns", "flat_relation"]

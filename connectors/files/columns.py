"""How the columns of a stream are kept in files."""

from __future__ import annotations

import pyarrow as pa

from ..arrow.fidelity import Fidelity, Kept, compare
from ..arrow.type_names import type_text
from ..arrow.unified import wider
from ..errors import FatalConnectorError
from ..field_facts import facts_of
from ..stream import TableState
from .formats import Format


def kept(field: pa.Field, stored: pa.Field, table: TableState, made: Format, *, is_new: bool) -> Kept:
    """Return how a column of a stream is kept.

    Args:
        field: the column as it arrives.
        stored: the column as the format keeps it in a new table.
        table: the state of the table.
        made: the table's format.
        is_new: the table is made anew, whatever types it has.
    """
    place = -1 if table.schema is None else table.schema.get_field_index(field.name)
    held = None if table.schema is None or place < 0 else table.schema.field(place)
    if not made.has_type(stored.type):
        return Kept(column=field.name, type="", arrow=None)
    before, kind, becomes, note = None if held is None else str(held.type), stored.type, stored.type, ""
    if held is not None and not is_new:
        try:
            is_text_now = facts_of(field).becomes_text
            becomes = stored.type if is_text_now else wider("", held, stored.type)
        except FatalConnectorError:
            held_type, arriving = type_text(held.type), type_text(stored.type)
            note = f"the table's column is {held_type}, the stream's is {arriving}, and neither type holds the other"
            return Kept(column=field.name, type=str(before), arrow=None, held=before, note=note)
        if compare(stored.type, becomes) is Fidelity.LOSSY:
            note = "each value is checked; one that does not fit is refused"
        else:
            kind = becomes
    is_text = made.keeps_as_text(kind)
    shown = str(made.written_type(becomes))
    return Kept(column=field.name, type=shown, arrow=kind, held=before, is_text=is_text, note=note)

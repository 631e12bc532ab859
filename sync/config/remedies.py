"""What mends a mistake, as messages name it: keys of the pipeline file, or options where there is no file yet."""

from __future__ import annotations

from msgspec import Struct


class Ways(Struct, frozen=True, kw_only=True):
    """The ways out that several messages name."""

    lossy_as_text: str = "`on_lossy: text` in this stream"
    lossy_cast: str = "`on_lossy: cast`"
    replace: str = "`write_disposition: replace` in this stream"
    another_table: str = "give another `destination_table`"
    #: Whether `state adopt` can read the pipeline.
    can_adopt: bool = True


IN_FILE = Ways()


def typed_ways(file: str) -> Ways:
    """Return the ways of a pipeline that was typed; `file`: the one file that it writes, or empty."""
    return Ways(
        lossy_as_text="--on-lossy text",
        lossy_cast="--on-lossy cast",
        replace="--mode replace",
        another_table="name another file" if file else "give another table by --destination-table",
        can_adopt=False,
    )


__all__ = ["IN_FILE", "Ways", "typed_ways"]

"""`nested`: down to how many levels the objects of a stream become columns."""

from __future__ import annotations

from .globs import exact_name, glob_matches
from .pipeline import Pipeline


def nested_levels(pipeline: Pipeline, stream: str) -> int:
    """Return what the pipeline says for a stream, by its name alone; 0: its objects stay what they are."""
    of_source = pipeline.source.nested or 0
    found = of_source
    for entry in pipeline.streams:
        is_about = exact_name(entry.stream) == stream or glob_matches(entry.stream, stream)
        if is_about and "nested" in entry.model_fields_set:
            found = of_source if entry.nested is None else entry.nested
    return found


def flattening_place(pipeline: Pipeline) -> tuple[str | int, ...] | None:
    """Return the first place in the file that says `flatten`; None: there is none."""
    if pipeline.source.nested:
        return ("source", "nested")
    places = (place for place, entry in enumerate(pipeline.streams) if entry.nested)
    return next((("streams", place, "nested") for place in places), None)


__all__ = ["flattening_place", "nested_levels"]

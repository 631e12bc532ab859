"""Conditions of streams and transformers (`when`): decided in the plan, by what is known before a run begins.

Their language is that of a callback block's `when`; only the names differ.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from syncblocks.callbacks.kwargs import INTERVAL, RESERVED, STATUSES, trigger_name

from .event_templates import ADDED, is_true, parse_condition, vocabulary
from .hook_checks import LateTemplates
from .pipeline import Pipeline
from .refusals import Report
from .templates import DEFAULTS, FUNCTIONS, PIPELINE_ATTRIBUTES, Parsed, TemplateError, TemplateValues, Vocabulary
from .yaml_document import Loc

#: Names in addition to those of the file's templates.
_OF_PLAN = ("destination_table", "pipeline_uuid", "trigger_name")


def is_condition(loc: Loc) -> bool:
    """Tell whether a place of the file has a condition that the plan decides."""
    return loc[0] in ("streams", "transformers") and loc[2:] == ("when",)


def check_conditions(pipeline: Pipeline, scope: TemplateValues, report: Report) -> tuple[set[str], list[Loc]]:
    """Check the conditions of all streams and transformers.

    Returns:
        The secrets that they use, and the places of those that use an interval.
    """
    secrets: set[str] = set()
    of_interval: list[Loc] = []
    for text, loc in _conditions(pipeline):
        names: set[str] = set()

        def read(text: str, known: Vocabulary, names: set[str] = names) -> Parsed:
            found = _parsed(text, known, pipeline.variables)
            names |= found.names
            return found

        check = LateTemplates(_known(pipeline.variables), scope, report)
        check(text, loc, read)
        secrets |= check.secrets
        if names & set(INTERVAL):
            of_interval.append(loc)
    return secrets, of_interval


def is_met(pipeline: Pipeline, loc: Loc, when: str, stream: str, destination_table: str) -> bool:
    """Tell whether a condition is true for a stream in this run.

    Args:
        pipeline: the pipeline file, loaded with the run's execution date, trigger and variables.
        loc: place of the condition, for errors.
        when: the condition.
        stream: its full name.
        destination_table: its table.

    Raises:
        ConfigError: it compares what cannot be compared.
    """
    scope = pipeline._origin.scope
    values = {
        **pipeline.variables,
        **scope.defaults,
        "stream": pipeline.called(stream),
        "destination_table": destination_table,
        "pipeline_uuid": pipeline.pipeline,
        # A retry is not told apart: it decides as its run has.
        "trigger_name": trigger_name(1, pipeline.trigger),
    }
    try:
        return is_true(when, values, _known(pipeline.variables), scope)
    except TemplateError as error:
        text = f"{error.message} (stream {stream!r})"
        raise pipeline.error(loc, text, allowed=error.allowed, nearest=error.nearest) from None


def _conditions(pipeline: Pipeline) -> Iterator[tuple[str, Loc]]:
    for place, entry in enumerate(pipeline.streams):
        if entry.when is not None:
            yield entry.when, ("streams", place, "when")
    for place, block in enumerate(pipeline.transformers):
        if block.when is not None:
            yield block.when, ("transformers", place, "when")


def _of_events(variables: Collection[str]) -> Vocabulary:
    """Return all names that a callback block's condition may use."""
    return vocabulary(statuses=tuple(STATUSES), parents=("stream", "pipeline"), variables=variables)


def _known(variables: Collection[str]) -> Vocabulary:
    """Return the names that are known in the plan."""
    own = set(variables) - RESERVED - set(FUNCTIONS) - set(ADDED)
    names = tuple(sorted({*DEFAULTS, *_OF_PLAN, *own}))
    attributes = (("pipeline", PIPELINE_ATTRIBUTES),)
    return _of_events(variables)._replace(names=names, attributes=attributes, whole=frozenset())


def _parsed(text: str, known: Vocabulary, variables: Collection[str]) -> Parsed:
    """Check a condition; one over results is told apart from one with a name that nobody knows."""
    try:
        return parse_condition(text, known)
    except TemplateError as error:
        try:
            used = parse_condition(text, _of_events(variables)).names
        except TemplateError:
            raise error from None
        later = sorted(used - set(known.names) - set(FUNCTIONS))
        if not later:
            raise
        message = f"{later[0]!r} has a value only after the run has begun, but the plan decides this condition"
        raise TemplateError(message, allowed=(*FUNCTIONS, *known.names)) from None

"""Checks of the hooks in a pipeline file, without calling them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from syncblocks.callbacks.kwargs import STATUSES
from syncblocks.connectors.named_parameters import parameter_names

from ..errors import nearest_match
from ..secrets import url_passwords
from .blocks import CallbackBlock
from .event_templates import parse_condition, vocabulary
from .hooks import EVENT_TEMPLATES, HOOKS
from .pipeline import Pipeline
from .refusals import Report
from .templates import Parsed, TemplateError, TemplateFunctions, TemplateValues, Vocabulary, parse
from .yaml_document import Loc

#: Names of an event whose values can be bound: texts, numbers, booleans.
SCALARS = frozenset(
    {
        "block_uuid",
        "parent_block_uuid",
        "ds",
        "hr",
        "execution_date",
        "execution_partition",
        "pipeline_run_id",
        "pipeline_uuid",
        "trigger_name",
        "stream",
        "destination_table",
        "index",
        "is_last_block_run",
        "idempotency_key",
        "status",
        "duration_s",
    }
)
_FILLED_IN = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")
_DIGITS = "0123456789"


def is_event_template(loc: Loc) -> bool:
    """Tell whether a place of the file has a template over the event."""
    if loc[0] != "callbacks" or len(loc) < 3:
        return False
    return loc[2] in EVENT_TEMPLATES or loc[2:4] == ("sql", "parameters")


def is_hook_setting(loc: Loc) -> bool:
    """Tell whether a place of the file is a setting of a hook, which may contain secrets."""
    return loc[0] == "callbacks" and len(loc) >= 3 and loc[2] in HOOKS and not is_event_template(loc)


def is_token_url(loc: Loc, text: str) -> bool:
    """Tell whether a place of the file is a hook's URL with a possible token in it."""
    is_url = is_hook_setting(loc) and (loc[2] == "notify" or loc[2:4] == ("webhook", "url"))
    return is_url and holds_token(text)


def holds_token(text: str) -> bool:
    """Tell whether a text, without its templates, contains a possible token or the password of a URL."""
    literal = _FILLED_IN.sub("", text)
    return any(map(_is_token, literal.split("/"))) or bool(url_passwords(literal))


def _is_token(part: str) -> bool:
    """Tell whether a part of a path has a long word, with a digit and a letter in it or behind it."""
    word = _TOKEN.search(part)
    rest = part[word.start() :] if word else ""
    return any(map(rest.__contains__, _DIGITS)) and re.search("[A-Za-z]", rest) is not None


def known_names(pipeline: Pipeline, block: CallbackBlock) -> Vocabulary:
    """Return the names that the templates of a callback block may use."""
    # The functions of a file may be called for any status.
    statuses = STATUSES if block.file is not None else block.statuses
    return vocabulary(statuses=tuple(statuses), parents=block.on, variables=pipeline.variables)


def parameter_choice(block: CallbackBlock, known: Vocabulary, variables: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names that a statement may bind."""
    assert block.sql is not None
    plain = {name for name in known.names if name in SCALARS or name in variables}
    return tuple(sorted(plain | block.sql.parameters.keys()))


def check_hooks(pipeline: Pipeline, scope: TemplateValues, report: Report) -> set[str]:
    """Check statuses, templates, conditions and parameters of every callback block.

    Returns:
        The secrets used by the templates.
    """
    secrets: set[str] = set()
    for place, block in enumerate(pipeline.callbacks):
        loc: Loc = ("callbacks", place)
        _check_status(block, loc, report)
        for key in ("title", "message"):
            if block.notify is None and getattr(block, key) is not None:
                report((*loc, key), f"needs notify, not {block.kind}")
        known = known_names(pipeline, block)
        check = LateTemplates(known, scope, report)
        for key in ("title", "message"):
            if (text := getattr(block, key)) is not None:
                check(text, (*loc, key), parse)
        if block.when is not None:
            check(block.when, (*loc, "when"), parse_condition)
        if block.sql is not None:
            for name, value in block.sql.parameters.items():
                if isinstance(value, str):
                    check(value, (*loc, "sql", "parameters", name), parse)
            _check_parameters(pipeline, block, known, loc, report)
        secrets |= check.secrets
    return secrets


def _check_status(block: CallbackBlock, loc: Loc, report: Report) -> None:
    if block.status is None:
        return
    if block.file is not None:
        report((*loc, "status"), "is not for file: its functions declare it, such as @callback('failure')")
        return
    for item, status in enumerate(block.status):
        if status not in STATUSES:
            report((*loc, "status", item), "there is no such status", allowed=tuple(STATUSES), word=status)


class LateTemplates:
    """Checks templates that are filled in later; collects the secrets that they use."""

    def __init__(self, known: Vocabulary, scope: TemplateValues, report: Report) -> None:
        """Check by these names, and by the functions' values in a scope."""
        self.secrets: set[str] = set()
        self._known = known
        self._scope = scope
        self._report = report

    def __call__(self, text: str, loc: Loc, read: Callable[[str, Vocabulary], Parsed]) -> None:
        """Report what is wrong with one; `read` parses it."""
        functions = TemplateFunctions(self._scope)
        try:
            for name, argument, has_default in read(text, self._known).calls:
                if name == "env_var" and has_default:
                    functions.env_var(argument, "")
                else:
                    functions.by_name()[name](argument)
        except TemplateError as error:
            self._report(loc, error.message, allowed=error.allowed, nearest=error.nearest)
        self.secrets |= functions.secrets


def _check_parameters(pipeline: Pipeline, block: CallbackBlock, known: Vocabulary, loc: Loc, report: Report) -> None:
    assert block.sql is not None
    allowed = parameter_choice(block, known, pipeline.variables)
    for name in parameter_names(block.sql.statement):
        if name not in allowed:
            report(
                (*loc, "sql", "statement"),
                f"there is no parameter :{name}",
                allowed=tuple(f":{item}" for item in allowed),
                nearest=nearest_match(name, allowed),
            )
    for name in block.sql.parameters:
        if name not in parameter_names(block.sql.statement):
            report((*loc, "sql", "parameters", name), f"is not used: the statement has no :{name}")

"""Load a pipeline file: read it, fill in its templates, check it."""

from __future__ import annotations

import json
import os
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from syncblocks.callbacks.kwargs import INTERVAL, interval_values
from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError
from syncblocks.connectors.struct_helpers import replace

from ..errors import ConfigError, nearest_match
from ..secrets import Redactor, url_passwords
from .arguments import AnyPipeline, checks_arguments
from .conditions import check_conditions, is_condition
from .current_folder import absolute
from .head_keys import PLAIN_KEYS, STORE_VARIABLE, refuse_templates, texts
from .hook_checks import check_hooks, is_event_template, is_hook_setting, is_token_url
from .mapping_document import mapping_document
from .one_file import take_one_file
from .other_words import project_of_others
from .pipeline import Origin, Pipeline
from .pydantic_errors import mended, misspelled, mistake_of, own_loc
from .query_values import QueryValue, query_values
from .refusals import check_pipeline, check_store
from .store_place import usual_store
from .templates import UNSTORED, TemplateError, TemplateValues, has_template, render, template_names
from .value_types import Moment, Rendered
from .yaml_document import Document, Loc, read_document

#: Key of the stored form of a variable that came from env_var or secret.
TEMPLATE_KEY = "$template"
#: Key beside it: the default variables that the template needs later.
SCOPE_KEY = "$defaults"

#: Only references of the pipeline file are resolved: somebody else may have written to the run store.
CHANGED_REFERENCE = (
    "its reference to an environment variable or a secret differs between the run store and the pipeline file: it is "
    "not looked up"
)

#: Most different templates; more of them take seconds to compile.
MAX_TEMPLATES = 1000

#: In the place of an interval where there is none: what reads or writes streams refuses the file (`check_interval`).
_NO_INTERVAL = (datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 2, tzinfo=UTC))

#: Most mistakes of one error.
MAX_MISTAKES = 10

#: Date values of an event, and the form that they must have to become part of a command.
_DATES = {
    "ds": re.compile(r"[0-9]+-[0-9]{2}-[0-9]{2}"),
    "hr": re.compile(r"[0-9]{2}"),
    "execution_partition": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]*/[0-9]+T[0-9]{6}"),
}

#: Settings of connectors that name a program, or code (see the settings of `singer` and `airbyte`).
_PROGRAMS = (
    *("pip", "executable", "python", "env", "tap", "target", "class"),
    *("package", "manifest", "sha256", "components", "allow_code"),
)

_SENSITIVE = re.compile(r"passw|pwd|secret|token|api[_-]?key|private[_-]?key|credential|authorization", re.IGNORECASE)
#: The same for names of headers.
_SENSITIVE_HEADER = re.compile(rf"{_SENSITIVE.pattern}|auth|key|cookie|session|signature", re.IGNORECASE)
_BASIC = re.compile(r"basic\s+([A-Za-z0-9+/=_-]+)\s*", re.IGNORECASE)
#: As a shell and other tools write a variable.
_SHELL_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
_SENSITIVE_SECTIONS = ("source", "destination", "store", "variables", "mask_key")


@checks_arguments
def load_pipeline(
    given: AnyPipeline,
    *,
    folder: str | os.PathLike[str] | None = None,
    variables: Mapping[str, Any] | None = None,
    execution_date: datetime | None = None,
    interval: tuple[datetime, datetime] | None = None,
    trigger: str | None = None,
    environ: Mapping[str, str] | None = None,
    recorded: Mapping[str, Any] | None = None,
    text: str | None = None,
    code_folder: Path | None = None,
) -> Pipeline:
    """Load and check a pipeline file, or a mapping in its place; connects to nothing and writes nothing.

    Args:
        given: the YAML file, or what it would hold: a mapping or a `Pipeline` made by hand, with its `pipeline`.
        folder: of a mapping: where relative paths start; default: the current folder.
        variables: JSON values, used before the file's `variables`; templates in them are not filled in.
        execution_date: start of the run, aware; default: now.
        interval: start and end of what the run is for, aware.
        trigger: trigger id, part of the execution partition; default "0".
        environ: environment for `env_var` and `secret`; default: the process's.
        recorded: `variable_references` of an earlier run that is retried, used before the file's variables. References
            are resolved again if the file still has them. Give that run's `execution_date` and `trigger` too.
        text: content of a file that is not written yet, or is on another machine.
        code_folder: where the files of transformers, callbacks and the catalog are; default: the file's own folder.

    Raises:
        ConfigError: the first mistake, with file, line, key, allowed values and the nearest match; `others` has the
            further ones.
    """
    document, home = _document(given, folder, text)
    moment = _execution_date(execution_date)
    trigger_id = "0" if trigger is None else str(trigger)
    environment = os.environ if environ is None else environ
    scope = TemplateValues(
        folder=home,
        environ=environment,
        defaults={
            "ds": moment.strftime("%Y-%m-%d"),
            "hr": moment.strftime("%H"),
            "env": environment.get("ENV") or "dev",
            "execution_date": moment.isoformat(),
            "execution_partition": f"{trigger_id}/{moment.strftime('%Y%m%dT%H%M%S')}",
            **interval_values(*(_NO_INTERVAL if interval is None else _checked(interval))),
        },
    )
    loader, is_dated = _Loader(document, scope, code_folder), execution_date is not None
    return loader.load(variables or {}, recorded or {}, moment, interval, trigger_id, is_dated=is_dated)


def _checked(interval: tuple[datetime, datetime]) -> tuple[datetime, datetime]:
    if any(moment.tzinfo is None for moment in interval):
        raise ConfigError("needs a time zone, e.g. 2023-04-26T20:28:17Z", key="interval")
    if interval[0] >= interval[1]:
        raise ConfigError(f"ends at {interval[1]}, which is not after its start {interval[0]}", key="interval")
    return interval


def _document(given: AnyPipeline, folder: str | os.PathLike[str] | None, text: str | None) -> tuple[Document, Path]:
    """Return what was given and the folder where its relative paths start."""
    if isinstance(given, Pipeline):
        given = given.given if given.is_loaded else given.model_dump(exclude_unset=True, by_alias=True)
    if isinstance(given, Mapping):
        if text is not None:
            raise ConfigError("is the content of a file: give the file's path too", key="text")
        return mapping_document(given), absolute(Path(folder or ""))
    if folder is not None:
        raise ConfigError("is for a mapping: relative paths of a file start at the file's own folder", key="folder")
    home = absolute(Path(given)).parent
    return read_document(Path(given), text), home


_MOMENT = re.compile(r"\{\{\s*(execution_date|interval_(start|end)_datetime|interval_start_datetime_previous)\s*\}\}")


def _execution_date(value: datetime | None) -> datetime:
    if value is None:
        return datetime.now(UTC)
    if value.tzinfo is None:
        raise ConfigError("needs a time zone, e.g. 2023-04-26T20:28:17Z", key="execution_date")
    return value.astimezone(UTC)


class _Loader:
    """Loads one file; collects its secrets, so that no error shows one."""

    def __init__(self, document: Document, scope: TemplateValues, code_folder: Path | None) -> None:
        self._document = document
        self._scope = scope
        self._code_folder = code_folder
        #: Values without the variables of an earlier run, for settings that name a program.
        self._own_scope = scope
        self._secrets: set[str] = set()
        self._templated: set[Loc] = set()
        self._distinct: set[str] = set()
        self._warnings: list[str] = []
        self._written_secrets: list[Loc] = []
        #: Where a template uses an interval.
        self._of_interval: list[Loc] = []
        #: Place of a stream's entry -> the values of templates in its query.
        self._query_values: dict[Any, tuple[QueryValue, ...]] = {}
        #: Arguments of `_error`, one each.
        self._mistakes: list[dict[str, Any]] = []

    def load(
        self,
        overrides: Mapping[str, Any],
        recorded: Mapping[str, Any],
        moment: datetime,
        interval: tuple[datetime, datetime] | None,
        trigger: str,
        *,
        is_dated: bool,
    ) -> Pipeline:
        raw = dict(self._document.value)
        if (path := self._document.path) is not None and (way := project_of_others(raw, path)):
            raise ConfigError(way, path=path)
        name = self._name(raw)
        self._scope = self._scope.knowing(pipeline={"name": name, "uuid": name})
        variables, references = self._variables(raw.get("variables"), overrides, recorded)
        self._scope = TemplateValues(
            folder=self._scope.folder,
            environ=self._scope.environ,
            defaults=self._scope.defaults,
            variables=variables,
        )
        self._own_scope = replace(self._scope, variables=self._own_variables(raw.get("variables"), variables, recorded))
        refuse_templates(raw, self._report)
        values = {
            key: value if key in PLAIN_KEYS else self._rendered(value, (key,))
            for key, value in raw.items()
            if key != "variables"
        }
        values["pipeline"] = name
        values["variables"] = variables if isinstance(raw.get("variables", {}), dict | None) else raw["variables"]
        self._note_literals(values)
        if values.get("store") is None and self._scope.environ.get(STORE_VARIABLE):
            place = usual_store(self._scope.folder, self._scope.environ)
            values["store"] = place.url
            self._secrets |= place.secret_values
        elif isinstance(values.get("store"), str) and values["store"].strip():
            values["store"] = check_store(str(values["store"]), self._scope.folder, self._report)
        pipeline = self._validated(values)
        if pipeline is not None:
            take_one_file(pipeline, self._scope.folder, self._report)
            check_pipeline(pipeline, self._code_folder or self._scope.folder, self._report)
            self._secrets |= check_hooks(pipeline, self._scope, self._report)
            secrets, of_interval = check_conditions(pipeline, self._scope, self._report)
            self._secrets |= secrets
            self._of_interval += of_interval
        self._raise_mistakes()
        assert pipeline is not None, "what is wrong was reported"
        pipeline._origin = Origin(
            document=self._document,
            scope=self._scope,
            execution_date=moment,
            is_dated=is_dated,
            interval=interval,
            of_interval=tuple(self._of_interval),
            query_values=self._query_values,
            trigger=trigger,
            references=references,
            overrides=dict(overrides),
            secret_values=frozenset(value for value in self._secrets if value),
            written_secrets=tuple(self._written_secrets),
            warnings=tuple(self._warnings),
            code_folder=self._code_folder,
        )
        pipeline._is_loaded = True
        return pipeline

    def _validated(self, values: Any) -> Pipeline | None:
        """Check the values' types and report what is wrong; None: the rest of them is no pipeline.

        Wrong values are mended or left out, so that all others are checked in the same go.
        """
        found: list[Any] = []
        for is_last in (False, False, True):
            try:
                return Pipeline.model_validate(values)
            except ValidationError as error:
                now = error.errors(include_url=False, include_input=False)
            if is_last or (found and not misspelled(found)):
                return None  # errors of what was left out
            found = misspelled(now) or now
            for each in sorted(found, key=lambda one: self._document.line(own_loc(one))):
                self._report(**mistake_of(each, values))
            values = mended(values, found)
        return None

    def _report(self, loc: Loc, message: str, **more: Any) -> None:
        """Note a mistake: see `_error`. Of a place, and of what holds it, only the first counts."""
        if any(loc == known["loc"][: len(loc)] for known in self._mistakes):
            return
        self._mistakes.append({"loc": loc, "message": message, **more})
        if len(self._mistakes) == MAX_MISTAKES:
            self._raise_mistakes()

    def _raise_mistakes(self) -> None:
        """Raise one error for all mistakes noted so far; do nothing if there is none."""
        if self._mistakes:
            # Made here: no message may show a secret that was found after it.
            first, *others = (self._error(**mistake) for mistake in self._mistakes)
            first.others = tuple(others)
            raise first

    def _error(
        self,
        loc: Loc,
        message: str,
        *,
        allowed: Iterable[str] = (),
        word: str | None = None,
        nearest: str | None = None,
        safe: bool = True,
        listed_in: str = "",
    ) -> ConfigError:
        """Return an error. `word` is the file's value; it is shown unless it came from a template."""
        allowed = tuple(allowed)
        if word is not None:
            nearest = nearest or nearest_match(word, allowed)
            if loc not in self._templated and len(word) <= 100 and message != "unknown key":
                message = f"{message}: {word!r}"
        if not safe and loc in self._templated:
            message = "its template gives a name that is reserved or already used: give the block another name"
        shown = Redactor(self._secrets).redact(message)
        return self._document.error(loc, shown, allowed=allowed, nearest=nearest, listed_in=listed_in)

    def _name(self, raw: Mapping[str, Any]) -> Any:
        name = raw.get("pipeline")
        if name is None and self._document.path is not None:
            return Path(self._document.path).stem
        return name

    def _variables(
        self, raw: Any, overrides: Mapping[str, Any], recorded: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the variables' values and their stored forms."""
        values: dict[str, Any] = {}
        references: dict[str, Any] = {}
        for name, value in raw.items() if isinstance(raw, dict) else ():
            loc: Loc = ("variables", name)
            if name in overrides or name in recorded:
                continue
            if _holds_key(value, TEMPLATE_KEY):
                raise self._error(loc, f"{TEMPLATE_KEY!r} is reserved and cannot be a key of a variable's value")
            names: set[str] = set()
            values[name] = self._rendered(value, loc, names)
            references[name] = self._reference(value, names) if names & UNSTORED else values[name]
        for name, value in recorded.items():
            values[name] = references[name] = value
            if isinstance(value, dict) and TEMPLATE_KEY in value:
                said = raw.get(name) if isinstance(raw, dict) else None
                if not _is_same(value[TEMPLATE_KEY], said):
                    raise self._error(("variables", name), CHANGED_REFERENCE)
                values[name] = self._rendered(said, ("variables", name))
        for name, value in overrides.items():
            if not isinstance(name, str) or not name or not _is_json(value) or _holds_key(value, TEMPLATE_KEY):
                raise ConfigError("is not a JSON value", path=self._document.path, key=f"variables.{name}")
            values[name] = references[name] = value
        return values, references

    def _own_variables(self, raw: Any, values: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables with the file's values in place of those of an earlier run."""
        own = {name: value for name, value in values.items() if name not in recorded}
        for name in recorded:
            if isinstance(raw, dict) and name in raw:
                # The secret of a variable that the earlier run did not use may be missing.
                before = list(self._mistakes)
                value = self._rendered(raw[name], ("variables", name))
                if len(self._mistakes) == len(before):
                    own[name] = value
                self._mistakes = before
        return own

    def _reference(self, value: Any, names: set[str]) -> dict[str, Any]:
        needed = {name: self._scope.defaults[name] for name in sorted(names & self._scope.defaults.keys())}
        return {TEMPLATE_KEY: value, **({SCOPE_KEY: needed} if needed else {})}

    def _rendered(self, value: Any, loc: Loc, names: set[str] | None = None) -> Any:
        """Return a value with its templates filled in once; conditions and templates over an event stay unfilled."""
        if is_event_template(loc) or is_condition(loc):
            return value
        if isinstance(value, dict):
            return {key: self._rendered(item, (*loc, key), names) for key, item in value.items()}
        if isinstance(value, list):
            return [self._rendered(item, (*loc, place), names) for place, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        if not has_template(value):
            self._refuse_shell_variable(value, loc)
            return value
        if "before" in (loc[0], *loc[2:3]) and loc[-1] == "sql":
            self._report(loc, "a template would become SQL: write the value, or bind it as a parameter")
            return value
        self._distinct.add(value)
        self._templated.add(loc)
        if len(self._distinct) > MAX_TEMPLATES:
            raise self._error(loc, f"more than {MAX_TEMPLATES} different templates: use variables")
        try:
            if loc[0] == "streams" and loc[2:] == ("query",):
                text, found = query_values(value, lambda template: self._filled(template, loc, names))
                self._query_values[loc[1]] = found
                return text
            return self._filled(value, loc, names)
        except TemplateError as error:
            self._report(loc, error.message, allowed=error.allowed, nearest=error.nearest)
            return value

    def _refuse_shell_variable(self, text: str, loc: Loc) -> None:
        """Refuse `${X}` where it would be taken as it stands; `{{ '${X}' }}` says that it is meant so."""
        found = _SHELL_VARIABLE.search(text) if loc[0] in ("source", "destination", "store") else None
        if found is not None:
            template = f"{{{{ env_var('{found[1]}') }}}}"
            line = f'{loc[-1]}: "{template}"' if found[0] == text else f"{template} in its place"
            self._report(loc, f"{found[0]} is not a template here: write {line}")

    def _filled(self, text: str, loc: Loc, names: set[str] | None) -> Any:
        is_table = len(loc) == 3 and loc[0] == "streams" and loc[2] == "destination_table"
        is_late = is_table and "stream" in template_names(text)
        scope = self._own_scope if _names_program(loc) else self._scope
        found = render(text, scope.knowing(stream="schema.table") if is_late else scope)
        if found.names & set(INTERVAL):
            self._of_interval.append(loc)
        self._secrets |= found.secrets
        if found.secrets and loc[2:3] == ("shell",) and loc[3:4] != ("env",):
            warning = "a secret in a command can be read by every user of this machine: give it in `shell.env`"
            self._warnings.append(str(self._document.error(loc, warning)))
        if loc[0] in _SENSITIVE_SECTIONS or is_hook_setting(loc):
            # Elsewhere env_var gives names of streams, tables and blocks, which messages must show.
            self._secrets |= found.environment
        if names is not None:
            names |= found.names
        if is_late:
            return text
        if is_table and isinstance(found.value, str) and has_template(found.value):
            raise TemplateError("gives a text that is a template itself")
        if (
            loc[0] == "streams"
            and loc[2:3] in (("add_columns",), ("where",), ("checks",), ("warn_checks",), ("query",))
            and _MOMENT.fullmatch(text.strip())
        ):
            return Moment(found.value)
        is_free = loc[0] == "variables" or "config" in loc[1:2]
        return Rendered(found.value) if isinstance(found.value, str) and not is_free else found.value

    def _note_literals(self, values: Mapping[str, Any]) -> None:
        """Collect passwords in URLs and under keys such as `password`; warn of those written in the file."""
        for section in (*_SENSITIVE_SECTIONS, "callbacks"):
            for loc, text in texts(values.get(section), (section,)):
                if section == "callbacks" and not is_hook_setting(loc):
                    continue
                key = str(loc[-1])
                passwords = url_passwords(text)
                sensitive = _SENSITIVE_HEADER if _is_header(loc) else _SENSITIVE
                is_secret = (len(loc) > 1 and sensitive.search(key) is not None) or is_token_url(loc, text)
                is_secret = is_secret or section == "mask_key"
                self._secrets |= passwords
                if is_secret:
                    self._secrets |= {text, *_credentials(text)}
                if self._is_filled(loc) or not (passwords or (is_secret and text)):
                    continue
                self._written_secrets.append(loc)
                if self._document.path is not None:
                    warning = "a secret is written in the file: use {{ secret('x') }} or {{ env_var('X') }}"
                    self._warnings.append(str(self._document.error(loc, warning)))

    def _is_filled(self, loc: Loc) -> bool:
        return any(loc[:end] in self._templated for end in range(1, len(loc) + 1))


def _is_header(loc: Loc) -> bool:
    """Return true if a place of the file is a header of an HTTP request."""
    return any(str(key).lower().endswith("headers") for key in loc[:-1])


def _credentials(text: str) -> Iterator[str]:
    """Yield the parts of a header's value that a message may show alone: after the scheme, and in Basic."""
    scheme, space, rest = text.strip().partition(" ")
    if space and scheme.isalnum():
        yield rest.strip()
    if basic := _BASIC.fullmatch(text.strip()):
        with suppress(ValueError):
            user, _, password = b64decode(basic[1], validate=True).decode().partition(":")
            yield from (password, f"{user}:{password}")


def _names_program(loc: Loc) -> bool:
    """Tell whether a place of the file names a program to execute, or the run store."""
    if loc[0] in ("callbacks", "transformers"):
        return loc[2:3] == ("file",)
    if loc[0] in ("source", "destination"):
        return loc[1:2] == ("connector",) or (len(loc) > 2 and loc[1] == "config" and loc[2] in _PROGRAMS)
    return loc[0] == "store"


def _holds_key(value: Any, key: str) -> bool:
    if isinstance(value, dict):
        return key in value or any(_holds_key(item, key) for item in value.values())
    return isinstance(value, list) and any(_holds_key(item, key) for item in value)


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def render_destination_table(template: str, pipeline: Pipeline, stream: str) -> str:
    """Return the destination table of one stream: the template of `destination_table`, filled in.

    Raises:
        ConfigError: the result is empty.
    """
    if not has_template(template):
        return template
    place = next((i for i, entry in enumerate(pipeline.streams) if entry.destination_table == template), None)
    loc: Loc = ("streams",) if place is None else ("streams", place, "destination_table")
    try:
        table = str(render(template, pipeline._origin.scope.knowing(stream=pipeline.called(stream))).value)
    except TemplateError as error:
        raise pipeline.error(loc, error.message, allowed=error.allowed, nearest=error.nearest) from None
    if not table.strip():
        raise pipeline.error(loc, f"gives an empty name for stream {stream!r}")
    return table


def resolve_references(
    values: Mapping[str, Any], pipeline: Pipeline, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return variables, or a callback's kwargs, with each `{"$template": ...}` resolved.

    Only whole values are references, also in the variables of `pipeline_run`. An `event` that looks like a reference is
    foreign data and stays unchanged. The template is taken from the file, not from the recorded value.

    Args:
        values: the variables, or the kwargs.
        pipeline: the pipeline file.
        environ: environment for `env_var` and `secret`; default: the pipeline's.

    Raises:
        ConfigError: an environment variable or secret no longer exists, or the file has another reference.
    """
    environment = pipeline.environ if environ is None else environ
    is_kwargs = isinstance(values.get("pipeline_run"), Mapping)
    found: dict[str, Any] = {}
    for name, value in values.items():
        if is_kwargs and name == "pipeline_run":
            inner = value.get("variables")
            found[name] = dict(value)
            if isinstance(inner, Mapping):
                found[name]["variables"] = resolve_references(inner, pipeline, environment)
        elif isinstance(value, Mapping) and TEMPLATE_KEY in value and not (is_kwargs and name == "event"):
            said = pipeline.raw_variables.get(name)
            if not _is_same(value[TEMPLATE_KEY], said):
                raise ConfigError(CHANGED_REFERENCE, path=pipeline._origin.document.path, key=f"variables.{name}")
            found[name] = _resolved(said, _scope_of(pipeline, value.get(SCOPE_KEY), environment), f"variables.{name}")
        else:
            found[name] = value
    return found


def settings_scope(pipeline: Pipeline, event: Mapping[str, Any], environ: Mapping[str, str]) -> TemplateValues:
    """Return the scope of a hook's settings: the file's variables, and the date of the event.

    The recorded variables of the event's run never become part of a command, URL or statement: a person who can write
    to the run store could change them.

    Args:
        pipeline: the pipeline file.
        event: keyword arguments of the event.
        environ: environment for `env_var` and `secret`.
    """
    dates = {name: event.get(name) for name, form in _DATES.items() if form.fullmatch(str(event.get(name)))}
    scope = _scope_of(pipeline, dates, environ)
    variables = dict(pipeline.variable_overrides)
    for name, value in pipeline.raw_variables.items():
        if name not in variables:
            # A retried run may have used its recorded value, so the file's may not resolve.
            with suppress(ConfigError):
                variables[name] = _resolved(value, scope, f"variables.{name}")
    return replace(scope, variables=variables)


def _scope_of(pipeline: Pipeline, recorded: Any, environ: Mapping[str, str]) -> TemplateValues:
    """Return the scope of the file's templates: the recorded date of an event, else the current values."""
    dates = recorded if isinstance(recorded, Mapping) else {}
    defaults = {name: dates[name] for name in _DATES if isinstance(dates.get(name), str)}
    name = pipeline.pipeline
    now = {"env": environ.get("ENV") or "dev", "pipeline": {"name": name, "uuid": name}}
    return TemplateValues(folder=pipeline.folder, environ=environ, defaults={**defaults, **now})


def _is_same(recorded: Any, said: Any) -> bool:
    """Tell whether the recorded template equals the file's, as JSON."""
    try:
        return said is not None and json.dumps(recorded) == json.dumps(said)
    except (TypeError, ValueError):
        return False


def _resolved(value: Any, scope: TemplateValues, key: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _resolved(item, scope, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, scope, f"{key}[{place}]") for place, item in enumerate(value)]
    if not isinstance(value, str) or not has_template(value):
        return value
    try:
        return render(value, scope).value
    except TemplateError as error:
        raise ConfigError(error.message, key=key, allowed=error.allowed, nearest=error.nearest) from None


def config_error_from_connector(pipeline: Pipeline, role: str, error: ConnectorConfigError) -> ConfigError:
    """Turn a connector's error about its `config` into a ConfigError with its place in the file.

    Args:
        pipeline: the loaded pipeline.
        role: "source" or "destination".
        error: the connector's error; `error.key` is the wrong key of `config`, dotted if nested. Its `others` are
            told too.
    """
    found = [_of_connector(pipeline, role, each) for each in (error, *error.others)]
    first, *others = sorted(found, key=lambda each: each.line or 0)
    first.others = tuple(others)
    return first


def put_at_its_place(pipeline: Pipeline, role: str, error: ConnectorError) -> None:
    """Put file and line of the setting that an error names before its text; `sync` has no file yet."""
    if error.key and pipeline.path is not None and pipeline.path.exists():
        error.args = (str(_of_connector(pipeline, role, ConnectorConfigError(str(error), key=error.key))),)


def _of_connector(pipeline: Pipeline, role: str, error: ConnectorConfigError) -> ConfigError:
    loc: Loc = (role, "config", *(int(part) if part.isdigit() else part for part in error.key.split(".")))
    block = pipeline.source if role == "source" else pipeline.destination
    is_about_all = not error.key and error.message.startswith("config of connector")
    if is_about_all or (error.key == "url" and "url" not in block.config):  # it names host and database one by one
        return pipeline.error((role, "config"), error.message)
    return pipeline.error(loc if error.key else (role, "connector"), error.message.removeprefix(f"{error.key}: "))

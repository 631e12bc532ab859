"""Templates `{{ ... }}` in the pipeline file: filled in once, in a sandbox, with a fixed list of names.

Each node of a template is checked before it is rendered. Statements, loops, arithmetic, methods and attributes are
errors, so a template cannot run code or use much time or memory.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from msgspec import Struct, field

from syncblocks.callbacks.kwargs import INTERVAL
from syncblocks.connectors.struct_helpers import replace

from ..errors import SyncError, nearest_match
from ..secret_stores import STORES, stored_secret
from ..secrets import lookup_secret

if TYPE_CHECKING:
    from jinja2.nodes import Node
    from jinja2.sandbox import ImmutableSandboxedEnvironment

#: Functions that tell a time before the run's, by the unit that they count in.
_AGO = {f"n_{unit}_ago": unit for unit in ("minutes", "hours", "days", "weeks")}
#: Functions of a name.
_OF_NAMES = ("env_var", "secret", "variables")
FUNCTIONS = (*_OF_NAMES, *STORES, "json_value", *_AGO)
#: Functions whose values are stored as their reference only.
UNSTORED = frozenset({"env_var", "secret", *STORES})
DEFAULTS = ("pipeline", "ds", "hr", "env", "execution_date", "execution_partition", "stream", *INTERVAL)
#: Names and functions whose values are of the run's date or interval.
TIMES = frozenset({"ds", "hr", "execution_date", "execution_partition", *INTERVAL, *_AGO})
PIPELINE_ATTRIBUTES = ("name", "uuid")
MAX_TEMPLATE_LENGTH = 65_536
MAX_NESTING = 20


def text_filters(as_text: Callable[[Any], Any]) -> dict[str, Callable[[Any], str]]:
    """Return the filters that all templates have; `as_text` turns a value into text."""
    return {
        "lower": lambda value: str(as_text(value)).lower(),
        "upper": lambda value: str(as_text(value)).upper(),
        "trim": lambda value: str(as_text(value)).strip(),
        # Jinja's own filter keeps "/", which breaks a URL whose password contains it.
        "urlencode": lambda value: quote(str(as_text(value)), safe=""),
        # A stream's name without its schema.
        "table": lambda value: str(as_text(value)).rpartition(".")[2],
    }


def _as_text(value: Any) -> Any:
    """Return a JSON value as JSON text: `true`, not `True`. Jinja calls this for constants and results."""
    if value is None or isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False)
    return value


_FILTERS = text_filters(_as_text)
#: Nodes that every template may contain.
HARMLESS = ("Const", "TemplateData", "CondExpr", "Compare", "Operand", "And", "Or", "Not", "Concat", "Keyword")
_FREE = re.compile(r"\{\{|\{%")


class TemplateError(SyncError):
    """A template is wrong or cannot be filled in; the caller adds file, line and key."""

    code = "template"

    def __init__(self, message: str, *, allowed: tuple[str, ...] = (), nearest: str | None = None) -> None:
        super().__init__(message)
        self.allowed = allowed
        self.nearest = nearest


class TemplateValues(Struct, frozen=True, kw_only=True):
    """The values that a template can use at one place of the file."""

    folder: Path
    environ: Mapping[str, str]
    #: Values of `variables('x')`; None inside `variables`, where the function is not allowed.
    variables: Mapping[str, Any] | None = None
    #: Mage's default variables at this place.
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def knowing(self, **defaults: Any) -> TemplateValues:
        """Return the scope with more default variables."""
        return replace(self, defaults={**self.defaults, **defaults})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for another process, which has an environment of its own in place of this one's."""
        environ = None if self.environ is os.environ else dict(self.environ)
        return _as_pickled, (self.folder, environ, self.variables, self.defaults)


def _as_pickled(
    folder: Path, environ: Mapping[str, str] | None, variables: Mapping[str, Any] | None, defaults: Mapping[str, Any]
) -> TemplateValues:
    return TemplateValues(
        folder=folder, environ=os.environ if environ is None else environ, variables=variables, defaults=defaults
    )


class Rendering(Struct, frozen=True, kw_only=True):
    """A template filled in."""

    #: A text, or a JSON value if the template is one call of variables().
    value: Any
    #: Functions and default variables that the template uses.
    names: frozenset[str]
    #: Values that secret() returned.
    secrets: frozenset[str]
    #: Values that env_var() found in the environment, without defaults from the file.
    environment: frozenset[str]


class Vocabulary(NamedTuple):
    """Names that a kind of template may use; hashable, since parsed templates are cached."""

    names: tuple[str, ...]
    #: Objects and their allowed attributes.
    attributes: tuple[tuple[str, tuple[str, ...]], ...]
    #: Objects that may also be used without an attribute.
    whole: frozenset[str] = frozenset()
    filters: tuple[str, ...] = tuple(_FILTERS)
    #: Allowed kinds of nodes.
    nodes: tuple[str, ...] = HARMLESS

    @property
    def dotted(self) -> tuple[str, ...]:
        """Every allowed `object.attribute`."""
        return tuple(f"{name}.{attribute}" for name, attributes in self.attributes for attribute in attributes)


#: Names for templates that are filled in when the file is loaded.
CONFIGURATION = Vocabulary(names=DEFAULTS, attributes=(("pipeline", PIPELINE_ATTRIBUTES),))


class Parsed(NamedTuple):
    """A checked template."""

    #: Functions and names that it uses.
    names: frozenset[str]
    #: (function, its first argument, whether it has a default); not those of `json_value`.
    calls: tuple[tuple[str, Any, bool], ...]
    #: Whether it is one expression without text around it.
    is_lone: bool
    #: The x of a template that is only `variables('x')`; else None.
    lone_variable: str | None


def has_template(text: str) -> bool:
    """Tell whether a text contains a template."""
    return _FREE.search(text) is not None


def template_names(text: str) -> frozenset[str]:
    """Return the functions and default variables that a template uses.

    Raises:
        TemplateError: it is not a template, or uses a name that is not allowed.
    """
    return parse(text, CONFIGURATION).names


def render(text: str, scope: TemplateValues) -> Rendering:
    """Fill in a template once; templates in its values are not filled in.

    Raises:
        TemplateError: the template is wrong, or a name in it has no value. Shows no value.
    """
    parsed = parse(text, CONFIGURATION)
    names, lone_variable = parsed.names, parsed.lone_variable
    for name in sorted(names.intersection(DEFAULTS) - scope.defaults.keys()):
        raise TemplateError(f"{name!r} is not known here", allowed=(*FUNCTIONS, *sorted(scope.defaults)))
    functions = TemplateFunctions(scope)
    value: Any
    if lone_variable is not None:
        value = functions.variables(lone_variable)
    else:
        from jinja2 import TemplateError as EngineError

        try:
            value = _environment().from_string(text).render({**scope.defaults, **functions.by_name()})
        except TemplateError:
            raise
        except (EngineError, *NOT_FILLED) as error:
            # Without the cause, whose text may contain a value.
            raise TemplateError(f"cannot be filled ({type(error).__name__}): check the arguments") from None
        _check_text(value, "what it makes")
    return Rendering(
        value=value,
        names=names,
        secrets=frozenset(functions.secrets),
        environment=frozenset(functions.environment),
    )


#: What a template raises that cannot be filled in, beside the engine's own errors; 1e999 is no name of Python.
NOT_FILLED = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, NameError, RecursionError)


class TemplateFunctions:
    """The functions of templates; they record the values that they returned."""

    def __init__(self, scope: TemplateValues) -> None:
        self._scope = scope
        self.secrets: set[str] = set()
        self.environment: set[str] = set()

    def by_name(self) -> dict[str, Any]:
        """Return the functions by name, as Jinja needs them."""
        own = {name: getattr(self, name) for name in (*_OF_NAMES, "json_value")}
        own |= {name: partial(self._of_store, name) for name in STORES}
        return own | {name: partial(self._ago, name) for name in _AGO}

    def env_var(self, name: str, default: Any = None) -> str:
        """Return an environment variable."""
        value = self._scope.environ.get(_text(name, "env_var"))
        if value is None:
            if default is None:
                raise TemplateError(
                    f"environment variable {name!r} is not set and has no default",
                    nearest=nearest_match(name, self._scope.environ),
                )
            return str(default)
        _check_text(value, f"environment variable {name!r}")
        self.environment.add(value)
        return value

    def secret(self, name: str) -> str:
        """Return a secret."""
        try:
            value = lookup_secret(_text(name, "secret"), self._scope.folder, self._scope.environ)
        except LookupError as error:
            raise TemplateError(str(error)) from None
        return self._secret(name, value)

    def _of_store(self, function: str, name: str, key: str | None = None) -> str:
        """Return a secret of a store."""
        try:
            value = stored_secret(function, _text(name, function), key, self._scope.environ)
        except LookupError as error:
            raise TemplateError(str(error)) from None
        return self._secret(name, value)

    def _secret(self, name: str, value: str) -> str:
        self.secrets.add(value)
        _check_text(value, f"secret {name!r}")
        return value

    def variables(self, name: str) -> Any:
        """Return a runtime variable."""
        known = self._scope.variables
        if known is None:
            raise TemplateError("variables() cannot be used here: a variable is never made from another one")
        if _text(name, "variables") not in known:
            raise TemplateError(
                f"there is no variable {name!r}: name it under `variables`, or give it by --variable",
                allowed=tuple(sorted(known)),
                nearest=nearest_match(name, known),
            )
        return known[name]

    def json_value(self, value: Any, path: str) -> Any:
        """Return what stands at a path of a JSON text, such as `hosts[0].name`; messages show nothing of the text."""
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError):
            raise TemplateError(f"json_value(): what should have {path!r} is no JSON") from None
        for name, place in _STEP.findall(path.removeprefix("$")):
            try:
                found = found[int(place)] if place else found[name]
            except (LookupError, TypeError, ValueError):
                raise TemplateError(f"json_value(): there is no {(name or place)!r} on the way to {path!r}") from None
        if isinstance(found, str):
            _check_text(found, f"what json_value() finds at {path!r}")
        return found

    def _ago(self, function: str, number: int) -> str:
        """Return a date like `ds`, or a time like `execution_date`, so much before the run's."""
        partition = self._scope.defaults.get("execution_partition")
        if partition is None:
            raise TemplateError(f"{function}() cannot be used here: the run's time is not known")
        moment = datetime.strptime(str(partition).rpartition("/")[2], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        try:
            moment -= timedelta(**{_AGO[function]: number})
        except OverflowError:
            raise TemplateError(f"{function}({number}) is before the year 1") from None
        return moment.strftime("%Y-%m-%d") if _AGO[function] in ("days", "weeks") else moment.isoformat()


#: A step of a path: a name, or a place in a list.
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_PATH = re.compile(r"(?:\$\.?)?(?:[^.\[\]$][^.\[\]]*|\[\d+\])(?:\.[^.\[\]]+|\[\d+\])*")


def _text(name: Any, function: str) -> str:
    if not isinstance(name, str) or not name:
        raise TemplateError(f"{function}() needs a name in quotes: {function}('x')")
    return name


def _check_text(value: str, what: str) -> None:
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise TemplateError(f"{what} is not text: it holds a NUL or is not UTF-8")


def sandbox(finalize: Callable[[Any], Any], filters: Mapping[str, Any]) -> ImmutableSandboxedEnvironment:
    """Return a Jinja sandbox that has these filters and nothing else; `finalize` turns a value into text."""
    from jinja2 import StrictUndefined  # here: `plan` of a file without templates need not wait for it
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, finalize=finalize, autoescape=False
    )
    environment.filters = dict(filters)
    environment.tests = {}
    environment.globals = {}
    return environment


@lru_cache(maxsize=1)
def _plain(message: str) -> str:
    """Return what Jinja says of an expression, without the words of its own grammar."""
    found = re.fullmatch(r"expected token 'end of print statement', got (.*)", message)
    if found is None:
        return message
    return "compare two values by `==`, not by `=`" if found[1] == "'='" else f"unexpected {found[1]}"


def _environment() -> ImmutableSandboxedEnvironment:
    return sandbox(_as_text, _FILTERS)


@lru_cache(maxsize=1024)
def parse(text: str, vocabulary: Vocabulary) -> Parsed:
    """Check a template node by node.

    Raises:
        TemplateError: it is not a template, or uses a name that the vocabulary does not have.
    """
    from jinja2 import TemplateSyntaxError, nodes

    if len(text) > MAX_TEMPLATE_LENGTH:
        raise TemplateError(f"a template may have {MAX_TEMPLATE_LENGTH} characters at most")
    try:
        tree = _environment().parse(text)
    except TemplateSyntaxError as error:
        raise TemplateError(f"not a valid template: {_plain(error.message or '')}") from None
    except RecursionError:
        raise TemplateError("not a valid template: nested too deeply") from None
    except ValueError:  # Python refuses to read so many digits
        raise TemplateError("not a valid template: a number is too long") from None
    check = _Check(vocabulary)
    parts: list[Node] = []
    for statement in tree.body:
        if not isinstance(statement, nodes.Output):
            raise TemplateError("statements ({% ... %}) are not allowed, only expressions: {{ ... }}")
        for node in statement.nodes:
            check.node(node, depth=0)
            parts.append(node)
    is_lone = len(parts) == 1 and not isinstance(parts[0], nodes.TemplateData)
    lone = None
    if is_lone and isinstance(parts[0], nodes.Call) and len(parts[0].args) == 1 and not parts[0].kwargs:
        function, name, _ = check.calls[0]
        lone = name if function == "variables" else None
    return Parsed(names=frozenset(check.names), calls=tuple(check.calls), is_lone=is_lone, lone_variable=lone)


class _Check:
    """Allows the names of a vocabulary, constants, comparisons and `x if y else z`; nothing else."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.names: set[str] = set()
        self.calls: list[tuple[str, Any, bool]] = []
        self._vocabulary = vocabulary
        self._attributes = dict(vocabulary.attributes)
        self._shown = (*FUNCTIONS, *vocabulary.names)

    def node(self, node: Node, *, depth: int) -> None:
        """Check a node and all below it."""
        from jinja2 import nodes

        if depth > MAX_NESTING:
            raise TemplateError("not a valid template: nested too deeply")
        children = list(node.iter_child_nodes())
        if isinstance(node, nodes.Name):
            self._name(node.name)
        elif isinstance(node, nodes.Call):
            self._call(node)
            children.remove(node.node)
        elif isinstance(node, nodes.Getattr):
            self._attribute(node)
            children = []
        elif isinstance(node, nodes.Filter):
            filters = self._vocabulary.filters
            if node.name not in filters:
                raise TemplateError(
                    f"there is no filter {node.name!r}", allowed=filters, nearest=nearest_match(node.name, filters)
                )
        elif type(node).__name__ not in self._vocabulary.nodes:
            raise TemplateError(f"{type(node).__name__.lower()} is not allowed in a template", allowed=self._shown)
        for child in children:
            self.node(child, depth=depth + 1)

    def _name(self, name: str) -> None:
        if name in FUNCTIONS:
            raise TemplateError(f"{name} is a function: {name}({7 if name in _AGO else repr('x')})")
        if name in self._attributes and name not in self._vocabulary.whole:
            allowed = tuple(f"{name}.{attribute}" for attribute in self._attributes[name])
            raise TemplateError(f"write {allowed[0]}", allowed=allowed)
        _check_name(name, self._vocabulary.names, self._shown)
        self.names.add(name)

    def _call(self, node: Any) -> None:
        from jinja2 import nodes

        if not isinstance(node.node, nodes.Name):
            raise TemplateError("only these functions can be called", allowed=FUNCTIONS)
        name = node.node.name
        _check_name(name, FUNCTIONS, FUNCTIONS)
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise TemplateError("* and ** are not allowed")
        if name == "json_value":
            self._json_value(node)
            return
        if name in _AGO:
            self._number(name, node)
        elif name in STORES:
            self._store(name, node)
        # A computed name could be a secret, and the error about an unknown name would show it.
        elif not node.args or not isinstance(node.args[0], nodes.Const):
            raise TemplateError(f"{name}() needs a name in quotes: {name}('x')")
        self.names.add(name)
        self.calls.append((name, node.args[0].value, len(node.args) + len(node.kwargs) > 1))

    def _json_value(self, node: Any) -> None:
        """Check a call whose first argument is another call, which is checked as any."""
        from jinja2 import nodes

        form = "json_value(secret('x'), 'path.to[0].value')"
        if len(node.args) != 2 or node.kwargs or not isinstance(node.args[0], nodes.Call):
            raise TemplateError(f"json_value() needs a function and a path: {form}")
        path = node.args[1].value if isinstance(node.args[1], nodes.Const) else None
        if not isinstance(path, str) or not _PATH.fullmatch(path):
            raise TemplateError(f"json_value() needs a path in quotes: {form}")
        self.names.add("json_value")

    def _store(self, name: str, node: Any) -> None:
        from jinja2 import nodes

        form = f"{name}('path', 'key')" if name == "vault_secret_var" else f"{name}('x')"
        texts = [part.value for part in node.args if isinstance(part, nodes.Const) and isinstance(part.value, str)]
        if node.kwargs or not all(texts) or len(texts) != len(node.args) or len(texts) != form.count("'") // 2:
            raise TemplateError(f"write {form}, with texts in quotes")

    def _number(self, name: str, node: Any) -> None:
        from jinja2 import nodes

        number = node.args[0].value if len(node.args) == 1 and isinstance(node.args[0], nodes.Const) else None
        if not isinstance(number, int) or isinstance(number, bool) or node.kwargs:
            raise TemplateError(f"{name}() needs a whole number: {name}(7)")

    def _attribute(self, node: Any) -> None:
        from jinja2 import nodes

        owner = node.node.name if isinstance(node.node, nodes.Name) else ""
        if owner == "env" and re.fullmatch(r"\w+", node.attr):
            raise TemplateError(f"write {{{{ env_var('{node.attr}') }}}}")
        if owner not in self._attributes:
            if owner and owner not in self._vocabulary.names and nearest_match(owner, self._attributes):
                _check_name(owner, (), (*self._attributes,))
            raise TemplateError(f"attributes are not allowed ({node.attr!r})", allowed=self._vocabulary.dotted)
        known = self._attributes[owner]
        if node.attr not in known:
            raise TemplateError(f"{owner} has no {node.attr!r}", allowed=known, nearest=nearest_match(node.attr, known))
        self.names.add(owner)


def _check_name(name: str, known: tuple[str, ...], shown: tuple[str, ...]) -> None:
    if name not in known:
        raise TemplateError(f"{name!r} is not defined", allowed=shown, nearest=nearest_match(name, shown))

"""Subscriptions: which function is called for each event of each parent. Loads user files, calls nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from syncblocks.callbacks.errors import CallbackLoadError
from syncblocks.connectors.struct_helpers import Guarded

from ..config import CallbackBlock, Pipeline, glob_matches, matches_any
from ..errors import nearest_match
from ..store.model import Subscription

if TYPE_CHECKING:
    from syncblocks.callbacks.loader import CallbackFile, CallbackFunction, TransformerFunction

#: Words of `on` that are not a block_uuid.
STREAM, PIPELINE = "stream", "pipeline"
FLAG = "is_last_block_run"


class CallbackSpec(Guarded, frozen=True, kw_only=True):
    """A callback block and its functions or hook. The run store keeps its name and digest."""

    _hidden = ("hook",)

    block: str
    #: See `hooks.block_digest`.
    digest: str
    #: Absolute path; empty for a hook.
    file: str = ""
    timeout_s: float = 60.0
    attempts: int = 5
    #: The hook that replaces functions, see `hooks.hook_of`.
    hook: Mapping[str, Any] | None = None
    #: Condition over the event.
    when: str | None = None


class UserCode(msgspec.Struct, frozen=True, kw_only=True):
    """The user's files of a pipeline, loaded once: functions and subscriptions."""

    subscriptions: tuple[Subscription, ...] = ()
    callbacks: tuple[CallbackSpec, ...] = ()
    #: Transformer block -> its function; a block that only renames has none.
    transformers: Mapping[str, tuple[TransformerFunction, ...]] = msgspec.field(default_factory=dict)
    #: Transformer block -> columns that it renames, old: new; from the pipeline file or the decorator.
    renames: Mapping[str, Mapping[str, str]] = msgspec.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    #: Keyword arguments that functions misspell; a run and `check` warn of them too.
    misspelt: tuple[str, ...] = ()


def load_user_code(pipeline: Pipeline) -> UserCode:
    """Load callback and transformer files.

    Raises:
        ConfigError: a file does not load, marks no function, or has a parameter that nothing can fill.
    """
    subscriptions: list[Subscription] = []
    specs: list[CallbackSpec] = []
    warnings: list[str] = []
    misspelt: list[str] = []
    for number, block in enumerate(pipeline.callbacks):
        parents = _parents(pipeline, block)
        if block.file is None:
            subscriptions += _hook_subscriptions(block, parents)
            specs.append(_hook_spec(pipeline, number))
            warnings += _hook_warnings(pipeline, block, parents)
            continue
        file = _load(pipeline, block.file, ("callbacks", number, "file"), "callback", parents)
        for function in file.functions:
            for status in sorted(function.statuses):
                subscriptions += [
                    Subscription(
                        callback_block=block.block,
                        function=function.name,
                        parent=parent,
                        status=status,
                        streams=tuple(block.streams) if block.streams and parent != PIPELINE else None,
                        needs_data=function.needs_data(status, parent),
                    )
                    for parent in parents
                ]
        from .hook_settings import block_digest  # imported here: a pipeline without callbacks does not need it

        specs.append(
            CallbackSpec(
                block=block.block,
                digest=block_digest(pipeline, number),
                file=str(pipeline.code_path(block.file)),
                timeout_s=block.timeout_s,
                attempts=block.attempts,
                when=block.when,
            )
        )
        warnings += _flag_warnings(pipeline, block, file, parents)
        misspelt += _misspelt(pipeline, block, file)
    transformers = _load_transformers(pipeline)
    return UserCode(
        subscriptions=tuple(subscriptions),
        callbacks=tuple(specs),
        transformers=transformers,
        renames=_renames(pipeline, transformers),
        warnings=(*_reserved_variables(pipeline), *_hidden_variables(pipeline, transformers), *misspelt, *warnings),
        misspelt=tuple(misspelt),
    )


def load_worker_code(pipeline: Pipeline, subscriptions: Iterable[Subscription]) -> UserCode:
    """Load transformer files only, for a process that calls no callbacks; the run has recorded their subscriptions.

    Raises:
        ConfigError: a file does not load.
    """
    transformers = _load_transformers(pipeline)
    return UserCode(
        subscriptions=tuple(subscriptions), transformers=transformers, renames=_renames(pipeline, transformers)
    )


def _hook_subscriptions(block: CallbackBlock, parents: Sequence[str]) -> list[Subscription]:
    return [
        Subscription(
            callback_block=block.block,
            function=block.kind,
            parent=parent,
            status=status,
            streams=tuple(block.streams) if block.streams and parent != PIPELINE else None,
        )
        for status in block.statuses
        for parent in parents
    ]


def _hook_spec(pipeline: Pipeline, number: int) -> CallbackSpec:
    """Return the spec of a hook.

    Raises:
        ConfigError: Apprise is not installed, or cannot use a URL.
    """
    from .hook_settings import block_digest, hook_of

    block = pipeline.callbacks[number]
    if block.notify is not None:
        from syncblocks.callbacks import notify

        if not notify.is_installed():
            raise pipeline.error(("callbacks", number, "notify"), notify.MISSING)
        for place, url in enumerate(block.notify):
            if not notify.is_known(url):
                scheme = url.partition("://")[0]
                raise pipeline.error(
                    ("callbacks", number, "notify", place),
                    f"is not a URL that Apprise can use ({scheme}://...): wrong service, or a part of it is missing",
                )
    return CallbackSpec(
        block=block.block,
        digest=block_digest(pipeline, number),
        timeout_s=block.timeout_s,
        attempts=block.attempts,
        hook=hook_of(pipeline, number),
        when=block.when,
    )


def check_stream_filters(pipeline: Pipeline, names: Sequence[str]) -> None:
    """Raise a ConfigError if a block's `streams` filter matches none of the selected streams."""
    filters: list[tuple[tuple[str | int, ...], Iterable[str]]] = [
        (("callbacks", number, "streams"), block.streams or ()) for number, block in enumerate(pipeline.callbacks)
    ]
    filters += [
        (("transformers", number, "streams"), block.streams or ()) for number, block in enumerate(pipeline.transformers)
    ]
    for location, patterns in filters:
        for pattern in patterns:
            if not any(glob_matches(pattern, name) for name in names):
                raise pipeline.error(
                    location,
                    f"{pattern!r} matches none of the selected streams",
                    allowed=tuple(names[:20]),
                    nearest=nearest_match(pattern, names),
                )


def check_stream_names(pipeline: Pipeline, names: Sequence[str]) -> None:
    """Raise a ConfigError if two selected streams get the same name, see `stream_names`."""
    by_name: dict[str, str] = {}
    for name in names:
        other = by_name.setdefault(pipeline.called(name), name)
        if other != name:
            raise pipeline.error(
                ("stream_names",),
                f"with `stream_names: bare` {other!r} and {name!r} are both called {pipeline.called(name)!r}: take the "
                "key out, or put them into pipelines of their own",
            )


def applies(streams: Sequence[str] | None, name: str) -> bool:
    """Whether a block's `streams` filter includes a stream; without a filter it includes all."""
    return not streams or matches_any(streams, name)


#: One object for all streams: each empty set takes 200 bytes.
_NONE: frozenset[str] = frozenset()


def data_blocks(subscriptions: Iterable[Subscription], stream: str, destination_block: str) -> frozenset[str]:
    """Return the blocks whose output for one stream a callback needs."""
    found = {
        destination_block if subscription.parent == STREAM else subscription.parent
        for subscription in subscriptions
        if subscription.needs_data and applies(subscription.streams, stream)
    }
    return frozenset(found) if found else _NONE


def warm_blocks(subscriptions: Iterable[Subscription]) -> frozenset[str]:
    """Return the callback blocks that need data after a success."""
    return frozenset(item.callback_block for item in subscriptions if item.needs_data and item.status == "success")


def _parents(pipeline: Pipeline, block: CallbackBlock) -> list[str]:
    """Return the parents of `on`, with source, transformers and destination replaced by their block_uuids."""
    meaning = {
        "source": [pipeline.source.block],
        "transformers": [transformer.block for transformer in pipeline.transformers],
        "destination": [pipeline.destination.block],
    }
    parents = [parent for name in block.on for parent in meaning.get(name, [name])]
    return list(dict.fromkeys(parents))


def _load(
    pipeline: Pipeline,
    file: str,
    location: tuple[str | int, ...],
    expects: Literal["callback", "transformer"],
    parents: Sequence[str] | None = None,
) -> CallbackFile:
    from syncblocks.callbacks.loader import load_file  # imported here: a pipeline without such files does not need it

    from ..secrets import Redactor
    from .masked_output import masked_output

    names = tuple(pipeline.variables)
    try:
        with masked_output(Redactor(pipeline.secret_values)):  # output of a file during its execution
            return load_file(pipeline.code_path(file), variables=names, parents=parents, expects=expects)
    except CallbackLoadError as error:
        raise pipeline.error(location, str(error)) from error


def _load_transformers(pipeline: Pipeline) -> dict[str, tuple[TransformerFunction, ...]]:
    return {
        block.block: ()
        if block.file is None
        else _load(pipeline, block.file, ("transformers", number, "file"), "transformer").transformers
        for number, block in enumerate(pipeline.transformers)
    }


def _renames(
    pipeline: Pipeline, transformers: Mapping[str, Sequence[TransformerFunction]]
) -> dict[str, Mapping[str, str]]:
    found: dict[str, Mapping[str, str]] = {}
    for number, block in enumerate(pipeline.transformers):
        of_file = next((function.rename_columns for function in transformers[block.block]), {})
        if of_file and block.rename:
            raise pipeline.error(
                ("transformers", number, "rename"),
                "rename_columns of @transformer renames columns too: keep one of the two",
            )
        found[block.block] = of_file or block.rename
    return found


def _reserved_variables(pipeline: Pipeline) -> list[str]:
    if not pipeline.variables or not (pipeline.callbacks or pipeline.transformers):
        return []
    from syncblocks.callbacks.kwargs import RESERVED, TRANSFORMER_KWARGS

    taken = RESERVED | TRANSFORMER_KWARGS if pipeline.transformers else RESERVED
    return [
        f"variable {name!r}: functions get the keyword argument of that name instead; rename the variable"
        for name in pipeline.variables
        if name in taken
    ]


def _hidden_variables(pipeline: Pipeline, transformers: Mapping[str, Sequence[TransformerFunction]]) -> list[str]:
    """Warn of variables with the name of the parameter that receives a transformer's data."""
    return [
        f"transformer {block!r}: parameter {name!r} receives the data, not the variable {name!r}. Rename the parameter "
        "or the variable"
        for block, functions in transformers.items()
        for name in (function.binding.positional for function in functions)
        if name in pipeline.variables
    ]


def _misspelt(pipeline: Pipeline, block: CallbackBlock, file: CallbackFile) -> list[str]:
    from syncblocks.callbacks.kwargs import RESERVED
    from syncblocks.callbacks.unknown_names import unknown_names

    known = RESERVED | set(pipeline.variables)
    return [
        f"callback block {block.block!r}: {file.path.name} {unknown}"
        for function in file.functions
        for unknown in unknown_names(file.path, function, known)
        if unknown.is_slip
    ]


def _flag_warnings(pipeline: Pipeline, block: CallbackBlock, file: CallbackFile, parents: Sequence[str]) -> list[str]:
    """Warn of functions that use `is_last_block_run` but may not be called for the event that has it."""
    return [
        _flag_warning(block, f"function {function.name!r}", why)
        for function in _asking_for_flag(file)
        if (why := _may_miss(pipeline, block, function.statuses, parents))
    ]


def _hook_warnings(pipeline: Pipeline, block: CallbackBlock, parents: Sequence[str]) -> list[str]:
    """Warn of the same for a hook's condition."""
    if block.when is None or FLAG not in block.when:
        return []
    why = _may_miss(pipeline, block, frozenset(block.statuses), parents)
    return [_flag_warning(block, "its condition", why)] if why else []


def _flag_warning(block: CallbackBlock, what: str, why: str) -> str:
    return (
        f"callback block {block.block!r}: {what} may never see {FLAG}=True: {why}. "
        "If it must not be missed, use `on: [pipeline]`"
    )


def _may_miss(pipeline: Pipeline, block: CallbackBlock, statuses: frozenset[str], parents: Sequence[str]) -> str:
    """Return why the event with the flag may cause no call; empty if it always causes one."""
    transformers = [transformer.block for transformer in pipeline.transformers]
    reasons = []
    if statuses == {"success"} and set(parents) != {PIPELINE}:
        reasons.append("it is called for `success` only, and the last block run may fail or be cancelled")
    if block.streams:
        reasons.append("its `streams` filter may leave out the last stream")
    several = [parent for parent in parents if parent in transformers]
    if several and len(transformers) > 1 and set(several) != set(transformers):
        reasons.append(f"{several[0]!r} is one of several transformers, and the flag goes to the last of them")
    return "; ".join(reasons)


def _asking_for_flag(file: CallbackFile) -> list[CallbackFunction]:
    """Return the functions that use the flag, or those that may pass it on if only other code of the file names it."""
    if FLAG not in file.path.read_text(encoding="utf-8", errors="replace"):
        return []
    from syncblocks.callbacks.unknown_names import mentions

    users = [each for each in file.functions if FLAG in each.binding.named or mentions(file.path, each, FLAG)]
    return users or [each for each in file.functions if each.binding.takes_kwargs]

"""Try callback functions: call them as a run does, and return what each received and its outcome."""

from __future__ import annotations

import logging
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .dispatcher import Dispatcher
from .invoke import append_folder, show
from .kwargs import RESERVED, STATUSES, hydrate
from .loader import CallbackFunction, load_file
from .made_up_events import make_event
from .protocols import Delivery, LeaseResult, NothingOpen, Outcome, Prepared
from .triggers import Ask, refuse
from .unknown_names import UnknownName, unknown_names

#: Most characters of a shown value.
_VALUE_LIMIT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One call of one function."""

    function: str
    status: str
    #: Its keyword arguments -> `repr`, shortened. Without the data.
    received: Mapping[str, str]
    #: Size and columns of its data, such as `3 rows: id int64, name string`, or the reason why it got none.
    data: str
    #: Keyword arguments that it uses and that do not exist.
    unknown: tuple[UnknownName, ...]
    outcome: Outcome


def try_file(
    file: Path | str,
    *,
    statuses: Sequence[str] = (),
    function: str | None = None,
    event: Callable[[str], Mapping[str, Any]] = make_event,
    data: Path | None = None,
    variables: Collection[str] = (),
    parents: Collection[str] | None = None,
    timeout_s: float = 60.0,
    inline: bool = False,
    log: logging.Logger | None = None,
) -> list[Trial]:
    """Call functions of a callback file in a child process; an error of a function is in its outcome.

    Args:
        file: the callback file.
        statuses: statuses of the events; empty: every status that the file serves.
        function: only this function.
        event: returns the recorded keyword arguments for a status.
        data: the parent's output, a .parquet, .csv, .jsonl or .arrow file; None: three sample records.
        variables: names of runtime variables, in addition to those in the event.
        parents: `on` of the callback block, if known.
        timeout_s: deadline of each call.
        inline: Call in this process, without deadline, so that `breakpoint()` has the terminal.
        log: Where notes go, such as why there is no data.

    Raises:
        CallbackLoadError: the file does not load.
        LookupError: nothing in the file serves the statuses or has the name.
        ValueError: the data cannot be read.
    """
    path = Path(file).absolute()
    append_folder(str(path))
    events = {status: dict(event(status)) for status in statuses or STATUSES}
    names = frozenset(variables) | {name for recorded in events.values() for name in recorded if name not in RESERVED}
    loaded = load_file(path, variables=names, parents=parents, expects="callback")
    chosen = [item for item in loaded.functions if function in (None, item.name)]
    pairs = [(item, status) for status in events for item in chosen if status in item.statuses]
    if not pairs:
        there = ", ".join(f"{item.name} ({', '.join(sorted(item.statuses))})" for item in loaded.functions)
        wanted = " and ".join(filter(None, [function, ", ".join(statuses)]))
        raise LookupError(f"{path.name} has nothing for {wanted!r}; it has: {there}")
    with tempfile.TemporaryDirectory(prefix="syncblocks-") as folder:
        spooled, shape = _spool(data, Path(folder))
        given = _ListOutbox(
            [
                _delivery(
                    path, item, events[status], number, spooled if _has_data(item, status, events) else None, timeout_s
                )
                for number, (item, status) in enumerate(pairs)
            ]
        )
        outcomes = _deliver(given, inline=inline, log=log)
    return [
        Trial(
            function=item.name,
            status=status,
            received=_received(item, events[status]),
            data=_data_note(item, status, events[status], shape),
            unknown=tuple(unknown_names(path, item, RESERVED | names)),
            outcome=outcome,
        )
        for (item, status), outcome in zip(pairs, outcomes, strict=True)
    ]


class _ListOutbox:
    """An outbox in memory; each delivery is called once."""

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        self.block = deliveries[0].callback_block
        self.outcomes: list[Outcome] = []
        self._open = deque(deliveries)

    def lease(self, callback_block: str) -> LeaseResult:
        return self._open.popleft() if self._open else NothingOpen()

    def mark(self, delivery: Delivery, outcome: Outcome) -> str:
        self.outcomes.append(outcome)
        return "done" if outcome.ok else "dead"


def deliver_once(
    delivery: Delivery,
    *,
    inline: bool,
    resolve: Callable[[dict[str, Any]], dict[str, Any]],
    redact: Callable[[str], str],
    prepare: Callable[[Delivery, dict[str, Any]], Prepared],
    ask: Callable[[Delivery], Ask] = lambda delivery: refuse,
    log: logging.Logger | None = None,
) -> Outcome:
    """Call a function once with one delivery, as a run does."""
    given = _ListOutbox([delivery])
    (outcome,) = _deliver(given, inline=inline, resolve=resolve, prepare=prepare, redact=redact, ask=ask, log=log)
    return outcome


def _deliver(given: _ListOutbox, *, inline: bool, **settings: Any) -> list[Outcome]:
    dispatcher = Dispatcher(given, [given.block], inline=inline, **settings)
    try:
        dispatcher.drain(None)
    finally:
        dispatcher.close(0.0)
    return given.outcomes


def _delivery(
    path: Path, item: CallbackFunction, recorded: Mapping[str, Any], number: int, data: str | None, timeout_s: float
) -> Delivery:
    return Delivery(
        key=str(number),
        callback_block=recorded["block_uuid"],
        function=item.name,
        file=str(path),
        attempt=1,
        attempts=1,
        timeout_s=timeout_s,
        kwargs=recorded,
        data=data,
        label=path.name,
        wants_value=True,
    )


def _received(item: CallbackFunction, recorded: Mapping[str, Any]) -> dict[str, str]:
    """Return the keyword arguments of one call, also those passed by position."""
    args, kwargs = item.binding.arguments(hydrate(recorded), None)
    by_position = {
        slot.name: value for slot, value in zip(item.binding.slots, args, strict=False) if slot.value == "kwarg"
    }
    return {name: show(value, _VALUE_LIMIT) for name, value in {**by_position, **kwargs}.items() if name != "__input"}


def _has_data(item: CallbackFunction, status: str, events: Mapping[str, Mapping[str, Any]]) -> bool:
    return item.needs_data(status, events[status]["parent_block_uuid"])


def _data_note(item: CallbackFunction, status: str, recorded: Mapping[str, Any], shape: str) -> str:
    if item.binding.needs is None:
        return "none: the function asks for no data"
    if not item.needs_data(status, recorded["parent_block_uuid"]):
        return "None: only success of a block or a stream has data"
    how = f"as {item.binding.positional!r}" if item.binding.needs == "data" else "in `__input`"
    return f"{shape}, {how}"


def _spool(source: Path | None, folder: Path) -> tuple[str, str]:
    """Write data as an Arrow IPC file, as a run does; return its path and shape."""
    import pyarrow as pa

    table = sample_or_file(source)
    path = folder / "data.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    columns = ", ".join(f"{field.name} {field.type}" for field in table.schema)
    made_up = " (made up)" if source is None else ""
    return str(path), f"{table.num_rows} rows{made_up}: {columns}"


def sample_or_file(source: Path | None) -> Any:
    """Read a data file into an Arrow table; without one return three made-up records. Errors: see `read_table`."""
    import pyarrow as pa

    return pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]}) if source is None else read_table(source)


def read_table(source: Path) -> Any:
    """Read a data file into an Arrow table.

    Raises:
        ValueError: its format is not known, or it cannot be read.
    """
    import pyarrow as pa

    readers: dict[str, Callable[[Path], Any]] = {
        ".parquet": _read_parquet,
        ".csv": _read_csv,
        ".jsonl": _read_jsonl,
        ".arrow": _read_arrow,
    }
    reader = readers.get(source.suffix.lower())
    if reader is None:
        raise ValueError(f"the name of {source} must end in one of {', '.join(readers)}")
    try:
        return reader(source)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{source} cannot be read: {error}") from error


def _read_parquet(path: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path)


def _read_csv(path: Path) -> Any:
    import pyarrow.csv

    return pyarrow.csv.read_csv(path)


def _read_jsonl(path: Path) -> Any:
    import pyarrow.json

    return pyarrow.json.read_json(path)


def _read_arrow(path: Path) -> Any:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()

"""A look at the pipeline files of a folder and at their run stores. Opens no source and no destination."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Struct

from syncblocks.connectors.struct_helpers import replace

from ..clock import Clock
from ..config.current_folder import absolute
from ..config.head import Head, read_head
from ..config.store_place import usual_store
from ..errors import ConfigError, StateError
from ..pipeline_files import pipeline_files
from ..schedules import Schedule, next_times
from ..secrets import Redactor
from ..store import Store
from ..store.alerts import Finding
from ..store.freshness_facts import Asked, FactReads, Facts
from ..store.model import SUCCESS
from ..store.schedules import Pause
from .judge import FAILED, Judgement, expected, judge, last_success

#: How a pipeline stands, in one word; the worst first.
WORDS = ("broken", "late", "failed", "waiting", "paused", "running", "never ran", "no schedule", "on time")
#: Most characters of why a file is broken.
_MOST_SHOWN = 500


class Looked(Struct, frozen=True, kw_only=True):
    """A pipeline file, and how its pipeline stands."""

    #: Absolute.
    file: Path
    #: Name of the pipeline; of a broken file the file's name.
    pipeline: str
    word: str
    #: Since when it is late, or until when it is paused.
    at: datetime | None = None
    #: Why it waits, is paused or broken, or was refused; of a late one, why it waits.
    why: str = ""
    last_success: datetime | None = None
    age_s: float | None = None
    next_run: datetime | None = None
    judgement: Judgement = Judgement()
    #: None: the file is broken.
    head: Head | None = None
    facts: Facts | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether anything is late, dead or broken. A run that failed is not, if nothing is expected."""
        return any(each.kind != FAILED for each in self.judgement.findings)


class StoreLook(Struct, frozen=True):
    """An opened store, and the pipelines that it has; broken files are with one of the stores."""

    store: Store
    looked: tuple[Looked, ...]


class FolderLook(Struct, frozen=True, kw_only=True):
    """How the pipelines of a folder stand."""

    #: Absolute.
    folder: Path
    #: The worst first.
    looked: tuple[Looked, ...]
    stores: tuple[StoreLook, ...]
    #: Whether each store could be looked at.
    is_whole: bool = True


@contextmanager
def look_at_folder(folder: Path, *, needs_store: bool = False) -> Iterator[FolderLook]:
    """Look at all pipeline files of a folder; close the stores with the context.

    A store that is not there is made if a file says what to expect: it remembers since when.

    Args:
        folder: where the files are.
        needs_store: make each store that is not there.
    """
    folder = absolute(folder)
    heads, outside = read_heads(pipeline_files(folder))
    places: dict[str, list[Head]] = {}
    redactor = Redactor()
    for head in heads:
        try:
            place = head.store()
            redactor.add(place.secret_values)
            places.setdefault(place.url, []).append(head)
        except ConfigError as error:
            outside.append(broken(head.path, str(error)))
    if needs_store:  # it may know of a file that was broken
        usual = usual_store(folder)
        redactor.add(usual.secret_values)
        if not places or Store.exists(usual.url):
            places.setdefault(usual.url, [])

    def is_there(pipeline: str, path: Path) -> bool:
        return any(path == each.file for each in outside) or any(pipeline == head.pipeline for head in heads)

    with ExitStack() as stack:
        stores, is_whole = [], True
        for url, of_store in places.items():
            try:
                if needs_store or any(_has_expect(head) for head in of_store) or Store.exists(url):
                    store = stack.enter_context(Store.open(url))
                    stores.append((store, look_at(store, of_store) + gone(store, folder, is_there)))
                else:
                    outside += [_stood(head, Facts(now=Clock().now()), Judgement()) for head in of_store]
            except StateError as error:
                is_whole = False
                outside += [broken(head.path, redactor.redact(str(error))) for head in of_store]
        everything = [*outside, *(each for _, looked in stores for each in looked)]
        if stores:
            stores[0][1].extend(each for each in outside if each.head is None)
        yield FolderLook(
            folder=folder,
            looked=worst_first(everything),
            stores=tuple(StoreLook(store, tuple(looked)) for store, looked in stores),
            is_whole=is_whole,
        )


def read_heads(files: Iterable[Path]) -> tuple[list[Head], list[Looked]]:
    """Read pipeline files; return also those that are broken, or have the name of another one."""
    heads: dict[str, list[Head]] = {}
    found = []
    for file in files:
        try:
            head = read_head(file)
        except ConfigError as error:
            found.append(broken(absolute(file), str(error)))
        else:
            heads.setdefault(head.pipeline, []).append(head)
    for name, same in heads.items():
        if len(same) > 1:
            files_of = ", ".join(head.path.name for head in same)
            found += [broken(head.path, f"several files have the pipeline {name!r}: {files_of}") for head in same]
    return [same[0] for same in heads.values() if len(same) == 1], found


def broken(file: Path, why: str) -> Looked:
    """Return how a file stands that cannot be read."""
    why = " ".join(why.split())
    why = why if len(why) <= _MOST_SHOWN else f"{why[:_MOST_SHOWN]}..."
    finding = Finding(pipeline=file.name, kind="broken", what=f"broken: {why}")
    return Looked(file=file, pipeline=file.name, word="broken", why=why, judgement=Judgement(findings=(finding,)))


def gone(store: Store, folder: Path, is_there: Callable[[str, Path], bool]) -> list[Looked]:
    """Return the pipelines with a schedule in force whose file is gone from a folder.

    `is_there`: whether a file has the pipeline, or that file is broken, so that nobody knows.
    """
    found = []
    for known in store.schedules.known():
        path = Path(known.file)
        if known.schedule is None or path.parent != folder or is_there(known.pipeline, path):
            continue
        why = f"its file {path.name} is gone; `syncblocks schedule forget {known.pipeline}` if this is meant"
        finding = Finding(pipeline=known.pipeline, kind="gone", what=why)
        judgement = Judgement(findings=(finding,))
        found.append(Looked(file=path, pipeline=known.pipeline, word="broken", why=why, judgement=judgement))
    return found


def look_at_files(
    store: Store,
    folder: Path,
    heads: Mapping[str, Head],
    broken_files: Mapping[Path, str],
    is_awaited: Callable[[Path], bool],
    *,
    is_after_gap: bool = False,
) -> tuple[Looked, ...]:
    """Judge the pipelines of a folder, and name its broken files and the schedules whose file is gone.

    Args:
        store: Of all of them.
        folder: Where the files are, absolute.
        heads: Pipeline -> head of its file.
        broken_files: File -> why it is broken.
        is_awaited: Whether a file is there that was not read yet.
        is_after_gap: No server has looked for a while; see `judge`.
    """

    def is_there(pipeline: str, path: Path) -> bool:
        return pipeline in heads or path in broken_files or is_awaited(path)

    return (
        *look_at(store, heads.values(), is_after_gap=is_after_gap),
        *(broken(path, why) for path, why in broken_files.items()),
        *gone(store, folder, is_there),
    )


def look_at(store: Store, heads: Iterable[Head], *, is_after_gap: bool = False) -> list[Looked]:
    """Judge the pipelines of a store.

    `is_after_gap`: no server has looked for a while; see `judge`.
    """
    return [looked for looked, _ in _look(store.fact_reads(), list(heads), is_after_gap=is_after_gap)]


def look_at_one(reads: FactReads, head: Head) -> tuple[Looked, Facts]:
    """Judge a pipeline; return also what its store knows of it."""
    return _look(reads, [head], is_after_gap=False)[0]


def _look(reads: FactReads, heads: Sequence[Head], *, is_after_gap: bool) -> list[tuple[Looked, Facts]]:
    asked = [Asked(pipeline=head.pipeline, expect=head.expect, expects=head.expects) for head in heads]
    known = reads.facts_of(asked)
    for head in heads:
        if head.schedule is None:  # a pause outlives its schedule
            known[head.pipeline] = replace(known[head.pipeline], pause=None, ahead=None)
    seen = reads.see_all({head.pipeline: expected(head.expect, known[head.pipeline].expects) for head in heads})
    found = []
    for head in heads:
        facts = known[head.pipeline]
        is_catching_up = is_after_gap and (facts.waiting is not None or facts.is_running)
        of_head = (head.pipeline, head.schedule, head.expect, facts, seen[head.pipeline])
        found.append((_stood(head, facts, judge(*of_head, is_catching_up=is_catching_up)), facts))
    return found


def times_to_come(schedule: Schedule, pause: Pause | None, now: datetime, count: int) -> list[datetime]:
    """Return the next times at which something starts; none while nobody knows when a pause ends."""
    if pause is None:
        return next_times(schedule, now, count)
    # A time at the end of the pause is not skipped.
    return [] if pause.until is None else next_times(schedule, pause.until - timedelta(microseconds=1), count)


def worst_first(looked: Iterable[Looked]) -> tuple[Looked, ...]:
    """Return pipelines in the order in which somebody should look at them."""
    return tuple(sorted(looked, key=lambda each: (not each.is_wrong, WORDS.index(each.word), each.pipeline)))


def _has_expect(head: Head) -> bool:
    return head.expect is not None or bool(head.stream_expects)


def _stood(head: Head, facts: Facts, judgement: Judgement) -> Looked:
    succeeded_at, pause = last_success(facts), facts.pause
    word, why = _word(head, facts, judgement)
    at = min((each.since for each in judgement.findings if each.kind == "late" and each.since), default=None)
    if word == "paused" and pause is not None:
        at = pause.until
    times = [] if head.schedule is None else times_to_come(head.schedule, pause, facts.now, 1)
    return Looked(
        file=head.path,
        pipeline=head.pipeline,
        word=word,
        at=at,
        why=why,
        last_success=succeeded_at,
        age_s=None if succeeded_at is None else max((facts.now - succeeded_at).total_seconds(), 0.0),
        next_run=next(iter(times), None),
        judgement=judgement,
        head=head,
        facts=facts,
    )


def _word(head: Head, facts: Facts, judgement: Judgement) -> tuple[str, str]:
    """Return the word for a pipeline, and why it waits (also where it is late meanwhile), is paused or was refused."""
    run, kinds = facts.run, {each.kind for each in judgement.findings}
    if "late" in kinds:
        is_said = facts.is_running or not kinds.isdisjoint(("start", "refused", "clock"))
        return "late", "" if is_said or facts.pause is not None else facts.waiting or ""
    if "run" in kinds or (run is not None and not run.is_active and run.status != SUCCESS):
        return "failed", ""
    if facts.refused is not None and not facts.is_running:
        return "failed", f"its start was refused: {facts.refused}"
    if facts.pause is not None:
        return "paused", facts.pause.reason or ""
    if facts.is_running:
        return "running", ""
    if facts.ahead is not None:
        return "waiting", "the run store's clock is behind its newest tick"
    if facts.waiting is not None:
        return "waiting", facts.waiting
    if run is None:
        return "never ran", ""
    return ("on time" if head.schedule is not None or _has_expect(head) else "no schedule"), ""

"""Pairs of extractor and loader in a Meltano project, with their schedules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from .parts import entries_of, identifier, names_of

#: Meltano's names of intervals -> cron expressions.
_INTERVALS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


@dataclass(slots=True)
class Pair:
    """An extractor and the loader that runs after it."""

    extractor: str
    loader: str
    name: str
    comments: list[str] = field(default_factory=list)


def pairs_of(project: Mapping[str, Any], path: Path) -> list[Pair]:
    extractors, loaders = names_of(project, "extractors"), names_of(project, "loaders")
    found: dict[tuple[str, str], Pair] = {}
    jobs: dict[str, list[Pair]] = {}
    for job in entries_of(project.get("jobs")):
        name = str(job.get("name", ""))
        jobs[name] = []
        for task in _tasks(job.get("tasks")):
            for extractor, loader, rest in _in_task(task, extractors, loaders):
                pair = found.setdefault((extractor, loader), Pair(extractor, loader, identifier(name)))
                pair.comments.append(f"Job {name!r}: {task}")
                if rest:
                    pair.comments.append(f"  Not converted: {' '.join(rest)}. Call it from a callback, see docs.")
                jobs[name].append(pair)
    for schedule in entries_of(project.get("schedules")):
        scheduled = list(jobs.get(str(schedule.get("job", "")), ()))
        if schedule.get("extractor") and schedule.get("loader"):
            key = (str(schedule["extractor"]), str(schedule["loader"]))
            scheduled.append(found.setdefault(key, Pair(*key, identifier(str(schedule.get("name", ""))))))
        for pair in scheduled:
            pair.comments += _schedule(schedule)
    if not found and len(loaders) == 1:
        for extractor in extractors:
            name = f"{identifier(extractor)}_to_{identifier(loaders[0])}"
            found[extractor, loaders[0]] = Pair(extractor, loaders[0], name)
    if not found:
        raise ConfigError(
            "no job and no schedule runs an extractor with a loader, and there is not exactly one loader: "
            "nothing says which extractor and loader belong together",
            path=str(path),
        )
    return list(found.values())


def _tasks(tasks: Any) -> Iterator[str]:
    for task in tasks or ():
        yield " ".join(map(str, task)) if isinstance(task, list) else str(task)


def _in_task(task: str, extractors: Sequence[str], loaders: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Return each extractor of a task with the loader after it, and the remaining words."""
    words = task.split()
    pairs, rest, extractor = [], [], ""
    for word in words:
        if word in extractors:
            extractor = word
        elif word in loaders and extractor:
            pairs.append((extractor, word))
            extractor = ""
        else:
            rest.append(word)
    return [(*pair, rest if number == len(pairs) - 1 else []) for number, pair in enumerate(pairs)]


def _schedule(schedule: Mapping[str, Any]) -> list[str]:
    interval = str(schedule.get("interval", ""))
    cron = _INTERVALS.get(interval, interval)
    if cron in ("", "None", "@once", "@manual"):
        return [f"Schedule {schedule.get('name')!r}: {interval or 'none'}"]
    return [
        f"Schedule {schedule.get('name')!r}, as a line of a crontab (syncblocks leaves the time to cron):",
        f"  {cron}  cd THIS_FOLDER && syncblocks run THIS_FILE",
    ]

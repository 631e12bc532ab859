"""Pairs of extractor and loader in a Meltano project, with their schedules."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from ...errors import ConfigError
from .parts import at, entries_of, identifier, names_of, texts_of

#: Meltano's names of intervals -> cron expressions.
_INTERVALS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


class Pair(Struct):
    """An extractor and the loader that runs after it."""

    extractor: str
    loader: str
    name: str
    comments: list[str] = field(default_factory=list)
    #: Commands of dbt that the job runs after the loader, such as `run`.
    dbt: list[str] = field(default_factory=list)
    #: Steps of the job that nothing stands for.
    notes: list[str] = field(default_factory=list)


def pairs_of(project: Mapping[str, Any], path: Path) -> list[Pair]:
    found: dict[tuple[str, str], Pair] = {}
    jobs, apart = _jobs(project, found, path)
    apart += _schedules(project, jobs, found)
    extractors, loaders = names_of(project, "extractors"), names_of(project, "loaders")
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
    pairs = list(found.values())
    pairs[0].notes += apart + _unused(project, found)
    return pairs


def _jobs(
    project: Mapping[str, Any], found: dict[tuple[str, str], Pair], path: Path
) -> tuple[dict[str, list[Pair]], list[str]]:
    """Add the pairs of the jobs to `found`; return each job's, and what jobs without a pair do."""
    extractors, loaders = names_of(project, "extractors"), names_of(project, "loaders")
    mappings = _mappings(project)
    jobs: dict[str, list[Pair]] = {}
    mapped: list[str] = []
    unknown: list[str] = []
    apart: list[str] = []
    for job in entries_of(project.get("jobs")):
        name, extractor = str(job.get("name", "")), ""
        jobs[name] = []
        before: list[str] = []
        for task in _tasks(job.get("tasks")):
            for word in task.split():
                if word in extractors:
                    extractor = word
                elif word in loaders and extractor:
                    pair = found.setdefault((extractor, word), Pair(extractor, word, identifier(name)))
                    pair.comments.append(f"Job {name!r}: {task}")
                    jobs[name].append(pair)
                    extractor = ""
                elif word in mappings:
                    mapped.append(f"{word!r} in job {name!r}")
                elif extractor:
                    unknown.append(f"{word!r} in job {name!r}")
                elif not jobs[name]:
                    before.append(_left_out(word, name))
                else:
                    _step(word, name, jobs[name][-1], project)
        if jobs[name]:
            jobs[name][0].notes += before
        apart += [] if jobs[name] else before
    _refuse_between(mapped, unknown, path)
    return jobs, apart


def _refuse_between(mapped: Sequence[str], unknown: Sequence[str], path: Path) -> None:
    """Raise for what stands between an extractor and its loader: mappers, and words that nothing explains."""
    if mapped:
        raise ConfigError(
            f"mappers change records on their way, and nothing here stands for them, so that columns meant to be "
            f"hashed or removed would arrive in clear: {', '.join(mapped)}. Take them out of the job (of a copy of "
            "this file), run this again, and do their work by `columns: {exclude: ...}` of a stream, by a transformer, "
            "or by `stream_maps` in the config of a tap that knows it",
            path=str(path),
            key="jobs",
        )
    if unknown:
        raise ConfigError(
            "between extractor and loader, a job names what is neither a loader nor a mapping of this file: "
            f"{', '.join(unknown)}",
            path=str(path),
            key="jobs",
        )


def _schedules(
    project: Mapping[str, Any], jobs: Mapping[str, Sequence[Pair]], found: dict[tuple[str, str], Pair]
) -> list[str]:
    """Add the pairs of the schedules to `found`, and to all when they run; return what schedules of dbt alone do."""
    apart: list[str] = []
    for schedule in entries_of(project.get("schedules")):
        scheduled = list(jobs.get(str(schedule.get("job", "")), ()))
        transform = schedule.get("transform")
        if transform == "only":
            apart.append(_dbt_alone(schedule))
        elif schedule.get("extractor") and schedule.get("loader"):
            key = (str(schedule["extractor"]), str(schedule["loader"]))
            scheduled.append(found.setdefault(key, Pair(*key, identifier(str(schedule.get("name", ""))))))
            if transform == "run" and "run" not in scheduled[-1].dbt:
                scheduled[-1].dbt.append("run")
        for pair in scheduled:
            pair.comments += _schedule(schedule)
    return apart


def _unused(project: Mapping[str, Any], pairs: Collection[tuple[str, str]]) -> list[str]:
    """Name extractors and loaders that no pair has, but for those from which others inherit."""
    used = {name for pair in pairs for name in pair}
    found = []
    for kind in ("extractors", "loaders"):
        entries = entries_of(at(project, "plugins", kind))
        parents = {str(entry.get("inherit_from")) for entry in entries}
        unused = [name for name in names_of(project, kind) if name not in used | parents]
        if unused:
            found.append(f"{kind} that no job and no schedule runs are left out: {', '.join(unused)}")
    return found


def _tasks(tasks: Any) -> Iterator[str]:
    for task in tasks or ():
        yield " ".join(map(str, task)) if isinstance(task, list) else str(task)


def _mappings(project: Mapping[str, Any]) -> set[str]:
    """Return the words of a task that stand for a mapper: the names of mappings, and of mappers."""
    mappers = entries_of(at(project, "plugins", "mappers"))
    named = [str(each.get("name")) for mapper in mappers for each in entries_of(mapper.get("mappings"))]
    return {*named, *names_of(project, "mappers")}


def _step(word: str, job: str, pair: Pair, project: Mapping[str, Any]) -> None:
    """Note a step that is neither extractor nor loader with the pair before it."""
    plugin, _, command = word.partition(":")
    if plugin == "dbt" or plugin.startswith("dbt-"):
        pair.dbt.append(_command(project, plugin, command) or "run")
    else:
        pair.notes.append(_left_out(word, job))


def _dbt_alone(schedule: Mapping[str, Any]) -> str:
    lines = " ".join(_schedule(schedule)[1:]).strip().replace("syncblocks run THIS_FILE", "dbt run")
    when = f": {lines.replace('cd THIS_FOLDER', 'cd THIS_FOLDER/transform')}" if lines else ""
    return f"schedule {schedule.get('name')!r} runs dbt alone (`transform: only`), which cron can do{when}"


def _left_out(word: str, job: str) -> str:
    return f"job {job!r}: step {word!r} is not converted; a `shell` callback can run it"


def _command(project: Mapping[str, Any], plugin: str, name: str) -> str:
    """Return the arguments of a plugin's command: those that the file gives the name, else the name."""
    for entries in (at(project, "plugins") or {}).values():
        for entry in entries_of(entries):
            said = at(entry, "commands", name) if entry.get("name") == plugin else None
            if said:
                return str(said.get("args", name) if isinstance(said, Mapping) else said)
    return name


def _schedule(schedule: Mapping[str, Any]) -> list[str]:
    interval = str(schedule.get("interval", ""))
    cron = _INTERVALS.get(interval, interval)
    if cron in ("", "None", "@once", "@manual"):
        return [f"Schedule {schedule.get('name')!r}: {interval or 'none'}"]
    environ = "".join(f"{key}={shlex.quote(value)} " for key, value in texts_of(schedule.get("env")).items())
    return [
        f"Schedule {schedule.get('name')!r}, as a line of a crontab (syncblocks leaves the time to cron):",
        f"  {cron}  cd THIS_FOLDER && {environ}syncblocks run THIS_FILE",
    ]

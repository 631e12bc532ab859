"""The triggers of a Mage pipeline as `schedule` and settings of the pipeline, or as lines of a crontab."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from ...schedules import CronMistake, parse_cron
from ...secrets import url_passwords
from .blocks import leftovers
from .project import Project, entries_of, parts_of
from .values import is_secret

#: Mage's week begins on Monday.
_INTERVALS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 1", "@monthly": "0 0 1 * *"}
_READ = frozenset(
    (
        "name",
        "pipeline_uuid",
        "schedule_type",
        "schedule_interval",
        "start_time",
        "status",
        "variables",
        "settings",
        "last_enabled_at",
        "repo_path",
        "description",
    )
)


def trigger_lines(project: Project, pipeline: str, file: str, document: dict[str, Any], notes: list[str]) -> list[str]:
    """Bring a pipeline's triggers over: settings and `schedule` into the document, other schedules as comments.

    A setting of Mage's triggers is one of the pipeline here, so all triggers must have the same value.
    """
    path = f"pipelines/{pipeline}/triggers.yaml"
    found = entries_of(project.yaml(path).get("triggers")) if project.path(path) is not None else []
    settings = [parts_of(trigger.get("settings")) for trigger in found]
    read = {"skip_if_previous_running"}
    if found and all(each.get("allow_blocks_to_fail") is True for each in settings):
        document["allow_blocks_to_fail"] = True
        read.add("allow_blocks_to_fail")
    timeout = settings[0].get("timeout") if settings else None
    if type(timeout) is int and timeout > 0 and all(each.get("timeout") == timeout for each in settings):
        document["run_timeout_s"] = timeout
        notes.append("run_timeout_s: Mage's run fails after its timeout, but here the run ends as `cancelled`")
        read |= {"timeout", "timeout_status"}
    lines: list[str] = []
    is_only = len([trigger for trigger in found if trigger.get("status") == "active"]) == 1
    for trigger, own in zip(found, settings, strict=True):
        name, interval = str(trigger.get("name")), str(trigger.get("schedule_interval") or "")
        notes += leftovers(f"trigger {name}: settings", own, read)
        notes += leftovers(f"trigger {name}", trigger, _READ)
        if trigger.get("schedule_type") != "time" or interval in ("", "@once", "@always_on"):
            kind = f"{trigger.get('schedule_type')} {interval}".strip()
            notes.append(f"trigger {name} ({kind}) is not a schedule: look at `schedule`, and at the API of `serve`")
        elif is_only and trigger.get("status") == "active" and (schedule := _schedule(trigger, own, interval)):
            document["schedule"] = schedule
        else:
            lines += _crontab(trigger, name, interval, file, notes)
    return lines


def _schedule(trigger: Mapping[str, Any], settings: Mapping[str, Any], interval: str) -> dict[str, str] | None:
    """Return a trigger as `schedule`; `None` if `schedule` cannot have the same meaning."""
    cron = _INTERVALS.get(interval, interval)
    if trigger.get("variables") or settings.get("landing_time_enabled"):
        return None
    try:
        parse_cron(cron)
    except CronMistake:
        return None
    # Mage starts a run beside the previous one. Here a pipeline has one run at a time, so the next one waits.
    return {"cron": cron} | ({} if settings.get("skip_if_previous_running") else {"overlap": "wait"})


def _crontab(trigger: Mapping[str, Any], name: str, interval: str, file: str, notes: list[str]) -> list[str]:
    words = ["syncblocks", "run", file, "--trigger", name]
    for key, value in parts_of(trigger.get("variables")).items():
        if is_secret(str(key)) or any(url_passwords(str(value))):
            notes.append(f"trigger {name}: the variable {key!r} may be a secret: give it by hand")
        else:
            words += ["--variable", f"{key}={_text(value)}"]
    notes.append(
        f"trigger {name} is a line of a crontab: to let `syncblocks serve` start the pipeline, set `schedule`, and put "
        "the trigger's variables into `variables`"
    )
    state = "" if trigger.get("status") == "active" else " (not active in Mage)"
    return [
        f"Trigger {name}{state}, as a line of a crontab (times in UTC):",
        f"  {_INTERVALS.get(interval, interval)}  cd THIS_FOLDER && {shlex.join(words)}",
    ]


def _text(value: Any) -> str:
    """Return a value as `--variable` reads it: JSON, or a text that is none."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, default=str)

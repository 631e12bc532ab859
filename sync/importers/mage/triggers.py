"""The triggers of a Mage pipeline as lines of a crontab."""

from __future__ import annotations

import json
import shlex
from typing import Any

from ...secrets import url_passwords
from .blocks import leftovers
from .project import Project, entries_of, parts_of
from .values import is_secret

_INTERVALS = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
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
    """Return comments with the schedule; a single trigger's `allow_blocks_to_fail` goes into the document."""
    path = f"pipelines/{pipeline}/triggers.yaml"
    found = entries_of(project.yaml(path).get("triggers")) if project.path(path) is not None else []
    lines: list[str] = []
    for trigger in found:
        name, interval = str(trigger.get("name")), str(trigger.get("schedule_interval") or "")
        settings = dict(parts_of(trigger.get("settings")))
        if len(found) == 1 and settings.pop("allow_blocks_to_fail", False):
            document["allow_blocks_to_fail"] = True
        notes += leftovers(f"trigger {name}: settings", settings, {"skip_if_previous_running"})
        notes += leftovers(f"trigger {name}", trigger, _READ)
        if trigger.get("schedule_type") != "time" or interval in ("", "@once", "@always_on"):
            notes.append(f"trigger {name} ({trigger.get('schedule_type')} {interval}) is no schedule of a crontab")
            continue
        words = ["syncblocks", "run", file, "--trigger", name]
        for key, value in parts_of(trigger.get("variables")).items():
            if is_secret(str(key)) or any(url_passwords(str(value))):
                notes.append(f"trigger {name}: the variable {key!r} may be a secret: give it by hand")
            else:
                words += ["--variable", f"{key}={_text(value)}"]
        state = "" if trigger.get("status") == "active" else " (not active in Mage)"
        lines.append(f"Trigger {name}{state}, as a line of a crontab:")
        lines.append(f"  {_INTERVALS.get(interval, interval)}  cd THIS_FOLDER && {shlex.join(words)}")
    return lines


def _text(value: Any) -> str:
    """Return a value as `--variable` reads it: JSON, or a text that is none."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, default=str)

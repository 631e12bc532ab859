"""The notifications of a Mage pipeline as a `notify` callback block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .blocks import leftovers
from .project import Project, names_of, parts_of
from .values import in_clear, template

#: Mage's services with the webhook URLs that `notify` takes unchanged.
_WEBHOOKS = ("slack_config", "discord_config", "google_chat_config")
_STATUSES = {"trigger_failure": "failure", "trigger_success": "success"}
_LATE = "trigger_passed_sla"
_BLOCK = "notifications"


def notifications_of(
    project: Project, pipeline: Mapping[str, Any], notes: list[str], *, has_timeout: bool
) -> list[dict[str, Any]]:
    """Return the callback block that notifies as Mage does. Return `[]` if no known service is notified.

    Args:
        project: the project. Its metadata.yaml has defaults.
        pipeline: the pipeline's metadata.yaml.
        notes: gets what is not brought over.
        has_timeout: true if a run has a time limit. Mage notifies of it as a failure.
    """
    config = {
        **parts_of(project.yaml("metadata.yaml").get("notification_config")),
        **parts_of(pipeline.get("notification_config")),
    }
    alerts = names_of(config.get("alert_on", ["trigger_failure", _LATE]))
    urls = {name: url for name in _WEBHOOKS if (url := _url(name, config, notes))}
    if _LATE in alerts and any(str(key).endswith("_config") for key in config):
        notes.append("notification_config: for trigger_passed_sla, set `expect` and start `serve` with `--alert`")
    notes += leftovers("notification_config", config, {"alert_on", *urls})
    statuses = [here for mage, here in _STATUSES.items() if mage in alerts]
    if not urls or not statuses:
        return []
    notes.append("notification_config became the callback block `notifications`: install `syncblocks[notify]`")
    if has_timeout and "failure" in statuses:
        statuses.append("cancelled")
    return [{"block": _BLOCK, "notify": list(urls.values()), "on": ["pipeline"], "status": statuses}]


def _url(name: str, config: Mapping[str, Any], notes: list[str]) -> str | None:
    """Return the webhook URL of a service, which is a secret as a whole."""
    url = parts_of(config.get(name)).get("webhook_url")
    if not isinstance(url, str) or url in ("", "None"):
        return None
    if "{{" in url:
        return template(f"notification_config: {name}", url, notes)
    return in_clear("notification_config", f"{name}_webhook_url", notes)

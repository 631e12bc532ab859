"""How a pipeline stands, as JSON: `syncblocks status --json` prints it, and a server answers it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .look import Looked


def status_document(looked: Looked) -> dict[str, Any]:
    """Return how a pipeline stands."""
    head = looked.head
    return {
        "pipeline": looked.pipeline,
        "file": str(looked.file),
        "status": looked.word,
        "at": _time(looked.at),
        "why": looked.why or None,
        "last_success": _time(looked.last_success),
        "age_s": looked.age_s,
        "next_run": _time(looked.next_run),
        "findings": [
            {
                "kind": finding.kind,
                "stream": finding.stream or None,
                "what": finding.what,
                "since": _time(finding.since),
                "last_success": _time(finding.last_success),
            }
            for finding in looked.judgement.findings
        ],
        "owner": None if head is None else head.owner,
        "tags": [] if head is None else list(head.tags),
        "runbook": None if head is None else head.runbook,
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"

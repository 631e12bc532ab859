"""`/metrics` in the text format of Prometheus. Its labels are pipeline, stream and status, and no others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ...errors import StoreUnreachable
from ...freshness.look import Looked
from ...store.access import READ
from ...store.freshness_facts import Facts
from .answers import Refused
from .bearer import lacks, token_of
from .looks import Looks
from .served import Served

#: Of each pipeline so many of the newest runs are counted.
COUNTED_RUNS = 100

#: Metric -> what it tells; all are gauges.
METRICS = {
    "up": "Whether the server answers.",
    "broken_files": "Pipeline files that cannot be used.",
    "last_success_age_seconds": "Age of the oldest stream's last success.",
    "late": "Whether the pipeline is late.",
    "running": "Whether a run is active, its process alive.",
    "recent_runs": f"The newest {COUNTED_RUNS} runs of the pipeline, by status.",
    "deliveries_due": "Callbacks that are due, and that no process delivers.",
    "deliveries_dead": "Callbacks whose attempts have all failed.",
    "ticks_waiting": "Starts that wait.",
    "last_success_rows": "Records that the stream's last successful run wrote.",
}

#: Metric, labels and value.
_Sample = tuple[str, dict[str, str], float]


def metrics(served: Served, looks: Looks) -> Callable[[Request], Response]:
    """Return what answers `/metrics`, for tokens with the scope `read`."""

    def endpoint(request: Request) -> Response:
        try:
            token = token_of(request, served.store.access)
            if not token.may_read:
                raise lacks(token, READ)
            samples = sorted(_samples(served, looks), key=lambda sample: list(METRICS).index(sample[0]))
        except Refused as error:
            return PlainTextResponse(f"{error}\n", error.status, headers=dict(error.headers or {}))
        except StoreUnreachable:
            return PlainTextResponse("the run store does not answer\n", 503)
        text = served.redactor.redact(text_of(samples))
        return Response(text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    return endpoint


def text_of(samples: Iterable[_Sample]) -> str:
    """Return samples, those of a metric one after the other, in the text format."""
    lines: list[str] = []
    former = ""
    for name, labels, value in samples:
        if name != former:
            lines += [f"# HELP syncblocks_{name} {METRICS[name]}", f"# TYPE syncblocks_{name} gauge"]
        former = name
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"syncblocks_{name}{{{shown}}} {value:.15g}" if shown else f"syncblocks_{name} {value:.15g}")
    return "".join(f"{line}\n" for line in lines)


def _samples(served: Served, looks: Looks) -> Iterator[_Sample]:
    yield "up", {}, 1
    yield "broken_files", {}, len(served.files.broken)
    waiting = Counter(each.tick.pipeline for each in served.store.standing().ticks if not each.has_process)
    all_looked = [(looked, looked.facts) for looked in looks.all().looked if looked.facts is not None]
    recent = served.store.fact_reads().recent_statuses([looked.pipeline for looked, _ in all_looked], COUNTED_RUNS)
    for looked, facts in all_looked:
        for name, labels, value in _of_pipeline(looked, facts, recent[looked.pipeline]):
            yield name, {"pipeline": looked.pipeline, **labels}, value
        yield "ticks_waiting", {"pipeline": looked.pipeline}, waiting[looked.pipeline]


def _of_pipeline(looked: Looked, facts: Facts, recent: Mapping[str, int]) -> Iterator[_Sample]:
    if looked.age_s is not None:
        yield "last_success_age_seconds", {}, looked.age_s
    yield "late", {}, looked.word == "late"
    for status, number in sorted(recent.items()):
        yield "recent_runs", {"status": status}, number
    yield "running", {}, facts.is_running
    yield "deliveries_due", {}, facts.due_deliveries
    yield "deliveries_dead", {}, facts.dead_deliveries
    for stream, each in facts.streams.items():
        if each.rows is not None:
            yield "last_success_rows", {"stream": stream}, each.rows


def _escaped(text: str) -> str:
    """Return the value of a label; a lone half of a character is no text."""
    plain = text.encode("utf-8", "replace").decode()
    return plain.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

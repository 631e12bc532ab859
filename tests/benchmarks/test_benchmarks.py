"""Every benchmark, small and once: kept alive, and what it writes is right. Nothing is said of time."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import services
from tests.benchmarks import report, workers
from tests.benchmarks.bench import workshop
from tests.benchmarks.scenarios import SCENARIOS

pytestmark = pytest.mark.full

#: Three sizes of each of seven cases, four runs on each of three systems, fourteen pairs, servers of their own; the
#: tests of each part hold what they measure.
_SLOW = {"growth", "deletes", "pairs", "log-arrow", "log-memory"}
_LONG = pytest.mark.skipif(os.environ.get("SYNCBLOCKS_FAULTS") != "full", reason="takes a minute: with `make faults`")


@pytest.mark.postgres
@pytest.mark.parametrize("name", [pytest.param(name, marks=_LONG if name in _SLOW else ()) for name in SCENARIOS])
def test_a_benchmark_writes_what_it_read(name: str, tmp_path: Path) -> None:
    if shutil.which("psql") is None:
        services.missing("psql is not installed")
    with (
        ExitStack() as stack,
        workshop(tmp_path, services.postgres_server(), rows=2000, tables=5, repeat=1) as bench,
    ):
        bench.fresh = lambda: stack.enter_context(services.fresh_postgres_database())
        figures = SCENARIOS[name](bench)  # checks its own records
    assert figures
    assert all(figure.usage.wall_s > 0 for figure in figures)


def test_the_page_of_figures_is_written_anew_and_the_rest_of_it_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{report._BEGIN}\nold\n{report._END}\nafter\n")
    usage = {"wall_s": 2.0, "cpu_s": 1.0, "peak_rss_bytes": 3_000_000}
    figure = {"scenario": "a", "case": "b | c", "records": 10, "ratio": 0.9, "usage": usage, "extra_s": None}
    document = {
        "measured_at": "2026-11-24T20:00:00+00:00",
        "machine": "m",
        "processors": 2,
        "python": "3",
        "rows": 10,
        "repeat": 3,
        "load": [1, 1, 1],
        "versions": {"x": "1"},
        "figures": [figure | {"target": ">= 0.8", "is_met": True}],
    }
    later = document | {"figures": [figure | {"target": ">= 0.8", "is_met": False, "ratio": 0.5}]}
    for number, content in enumerate((document, later)):
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    drawn: list[object] = []
    monkeypatch.setattr(report, "DOCS", tmp_path)
    monkeypatch.setattr(report, "_draw", drawn.append)
    report.main([str(tmp_path / "0.json"), str(tmp_path / "1.json")])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| a | b \\| c | 2.00 | 5 | 1.00 | 3 | 0.50 | >= 0.8, **missed** |" in text
    assert "old" not in text
    assert "0.90" not in text
    assert len(drawn) == 1


def test_the_plot_is_drawn_as_png_and_svg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="only `make bench` installs it")
    monkeypatch.setattr(report, "DOCS", tmp_path)
    common = {"case": "syncblocks", "is_met": True}
    report._draw(
        [
            common | {"scenario": "postgres to postgres", "ratio": 0.8, "extra_s": None, "target": ">= 0.85"},
            common | {"scenario": "200 small tables", "ratio": 0.4, "extra_s": 0.9, "target": "<= 1 s more: 0.90 s"},
        ]
    )
    assert (tmp_path / "benchmarks.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "benchmarks.svg").read_text()


def test_the_runs_of_a_simulation_are_percentiles_rates_and_costs_and_a_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {
        **dict.fromkeys(("died", "frozen", "refused", "lost"), 1),
        "lags": [[5.0, float(lag)] for lag in range(101)],
        "load": {"0": 30, "9": 70, "40": 1},
        "cpu_s": 0.202,
        "block_runs": 10,
        "seconds": 50.5,
        "violations": [],
    }
    assert workers.waits([run], 95) == [(0, pytest.approx(95, abs=2))]
    assert workers.rates([run, run]) == [(0, 10.0)]
    assert workers.costs([run, run]) == [(10, 2.0), (20, 2.0)]
    (tmp_path / "runs.jsonl").write_text(f"{json.dumps(run)}\n" * 2)
    drawn: list[object] = []
    monkeypatch.setattr(workers, "draw", drawn.append)
    workers.main(str(tmp_path / "runs.jsonl"))
    assert "2 runs, 20 block runs, 0 violations; died 2" in capsys.readouterr().out
    assert len(drawn) == 1

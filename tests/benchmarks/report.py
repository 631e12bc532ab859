"""`python -m tests.benchmarks.report RESULTS.json ...`: the plot (PNG and SVG) and the table of docs/benchmarks.md.

Of several results, later ones replace the earlier ones' figures of the same scenario.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"

#: Scenario -> who came nearest in an earlier measurement of the same work, and how near.
RIVAL_RATIOS = {
    "postgres to postgres": ("dlt, tuned", 0.34),
    "postgres to duckdb": ("dlt, tuned", 0.41),
    "csv to postgres": ("dlt, tuned", 0.35),
    "mariadb to postgres": ("dlt, tuned", 0.40),
}
#: The same in seconds over the limit.
RIVAL_SECONDS = {
    "200 small tables": ("Singer", 5.4),
    "incremental, nothing new": ("a Go binary", 0.1),
    "incremental, 10,000 changed": ("best rival", 0.6),
}

_BEGIN, _END = "<!-- figures: begin -->", "<!-- figures: end -->"
_OURS, _RIVAL, _ASKED = "#1f77b4", "#c7c7c7", "#d62728"


def main(paths: Sequence[str]) -> None:
    """Draw and write what the results say."""
    documents = [json.loads(Path(path).read_text()) for path in paths]
    by_scenario: dict[str, list[dict[str, Any]]] = {}
    for document in documents:
        for name in dict.fromkeys(figure["scenario"] for figure in document["figures"]):
            by_scenario[name] = [figure for figure in document["figures"] if figure["scenario"] == name]
    figures = [figure for scenario in by_scenario.values() for figure in scenario]
    _draw(figures)
    page = DOCS / "benchmarks.md"
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n\n{_machine(documents[-1])}\n\n{_table(figures)}\n\n{_END}{after}")


def _machine(document: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    load = " / ".join(f"{value:.1f}" for value in document["load"])
    return (
        f"Measured {document['measured_at'][:16].replace('T', ' ')} UTC on {document['machine']}, "
        f"{document['processors']} processors, Python {document['python']}, {versions}; {document['rows']:,} records, "
        f"medians of {document['repeat']}; load of the machine at the end {load}."
    )


def _table(figures: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| scenario | case | seconds | records/s | CPU s | peak MB | ratio | asked |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for figure in figures:
        usage = figure["usage"]
        speed = f"{figure['records'] / usage['wall_s']:,.0f}" if figure["records"] else ""
        ratio = "" if figure["ratio"] is None else f"{figure['ratio']:.2f}"
        met = {True: ", met", False: ", **missed**", None: ""}[figure["is_met"]]
        lines.append(
            f"| {_cell(figure['scenario'])} | {_cell(figure['case'])} | {usage['wall_s']:.2f} | {speed} "
            f"| {usage['cpu_s']:.2f} | {usage['peak_rss_bytes'] / 1e6:.0f} | {ratio} | {figure['target']}{met} |"
        )
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _draw(figures: Sequence[Mapping[str, Any]]) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "syncblocks"  # the same figures make the same file
    from matplotlib import pyplot as plt

    shares = [figure for figure in figures if figure["target"].startswith(">= ") and figure["ratio"] is not None]
    extras = [figure for figure in figures if figure.get("extra_s") is not None]
    drawn, (left, right) = plt.subplots(1, 2, figsize=(12, 0.9 + 0.55 * max(len(shares), len(extras), 3)))
    _bars(left, shares, "ratio", RIVAL_RATIOS, "speed as a share of the limit (longer is better)")
    left.axvline(1, color="black", linewidth=0.8)
    _bars(right, extras, "extra_s", RIVAL_SECONDS, "seconds more than the limit (shorter is better)")
    drawn.tight_layout()
    for suffix in ("svg", "png"):
        drawn.savefig(DOCS / f"benchmarks.{suffix}", dpi=120, metadata={"Date": None} if suffix == "svg" else None)


def _bars(
    axes: Any, figures: Sequence[Mapping[str, Any]], key: str, rivals: Mapping[str, tuple[str, float]], title: str
) -> None:
    """Draw a bar a figure, its rival's below it, and a line where it should be."""
    for place, figure in enumerate(figures):
        own, asked = figure[key], float(figure["target"].split()[1].rstrip(","))
        axes.barh(place, own, height=0.38, color=_OURS)
        axes.text(own, place, f" {own:.2f}", va="center", fontsize=8)
        axes.plot([asked, asked], [place - 0.22, place + 0.22], color=_ASKED, linewidth=2)
        if figure["scenario"] in rivals and figure["case"] == "syncblocks":
            name, value = rivals[figure["scenario"]]
            axes.barh(place + 0.36, value, height=0.3, color=_RIVAL)
            axes.text(value, place + 0.36, f" {name} {value:g}", va="center", fontsize=7, color="#555555")
    labels = [
        figure["scenario"] if figure["case"] == "syncblocks" else f"{figure['scenario']}: {figure['case']}"
        for figure in figures
    ]
    axes.set_yticks(range(len(figures)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.15)


if __name__ == "__main__":
    main(sys.argv[1:])

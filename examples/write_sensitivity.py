"""The table and plot of the trained networks in docs/sensitivity.md, from docs/results/sensitivity/*.json.

    python examples/write_sensitivity.py

The tables stand between two marks in the document; what is written by hand around them stays.
"""

import re
from collections.abc import Iterator, Mapping
from math import inf, isfinite
from pathlib import Path
from typing import Any

from aimc_compiler.report.plot_sensitivity import drawn_factor, error_bars
from aimc_compiler.report.sensitivity import figure_text, load_sensitivity, points_text, tolerance_text
from aimc_compiler.study import Sensitivity
from aimc_compiler.study.sensitivity_results import EffectSensitivity as Row

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENT, RESULTS, IMAGE = DOCS / "sensitivity.md", DOCS / "results" / "sensitivity", DOCS / "images"
_MARKS = re.compile(
    r"(<!-- trained networks; do not edit below -->\n).*?(<!-- end of the trained networks -->)", re.DOTALL
)
#: What networks are called, in this order.
_LABELS = {"fashion": "CNN", "characters": "LSTM", "transformer": "transformer"}
_COLOURS = ("tab:blue", "tab:orange", "tab:green")


def read_all(folder: Path = RESULTS) -> dict[str, Sensitivity]:
    """The results by label."""
    paths = {path.stem: path for path in folder.glob("*.json")}
    if not paths:
        raise SystemExit(f"{folder} has no results: run study_sensitivity.py")
    return {label: load_sensitivity(paths[name]) for name, label in _LABELS.items() if name in paths}


def effects(found: Mapping[str, Sensitivity]) -> dict[str, dict[str, Row]]:
    """Rows by title and network, the costliest at equal MVM error first, of those that cost or stand something."""
    rows: dict[str, dict[str, Row]] = {}
    for label, result in found.items():
        for row in result.effects:
            if row.equal or row.tolerance:
                rows.setdefault(row.title, {})[label] = row
    return dict(sorted(rows.items(), key=lambda pair: -max(cost(row) for row in pair[1].values())))


def cost(row: Row) -> float:
    """Points of A* at equal MVM error; less than any where the effect does not reach it."""
    return 100 * row.equal.loss.mean if row.equal else -inf


def effects_table(found: Mapping[str, Sensitivity]) -> Iterator[str]:
    """Markdown: of each effect what it costs at equal MVM error, and how much of it is tolerated."""
    target = round(100 * (next(iter(found.values())).target_error or 0))
    head = ["effect", "the chip's"]
    head += [f"{label}: loss at {target} % MVM error" for label in found]
    head += [f"{label}: tolerated up to" for label in found]
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for title, rows in effects(found).items():
        cells = [title, figure_text(next(iter(rows.values())))]
        losses = [rows[label].equal if label in rows else None for label in found]
        cells += ["" if equal is None else points_text(equal.loss) for equal in losses]
        cells += [tolerance_text(rows[label]) if label in rows else "" for label in found]
        yield f"| {' | '.join(cells)} |"
    yield ""


def layers_table(label: str, result: Sensitivity, most: int = 6) -> Iterator[str]:
    """Markdown: the layers that cost most, and what is won where the first so many, or columns, are exempt."""
    total = sum(layer.parameters for layer in result.layers)
    yield f"| {label}: layer | share of weights | gain if exempt |"
    yield "|---|---|---|"
    for layer in result.layers[:most]:
        yield f"| `{layer.matrix}` | {100 * layer.parameters / total:.1f} % | {points_text(layer.gain)} |"
    yield ""
    yield f"| {label}: exempt | share of weights | A* (%) |"
    yield "|---|---|---|"
    protected = [("layer", "layers", result.layers_protected)]
    if result.columns:
        protected.append(("column", "columns", result.columns.protected))
        protected.append(("column by chance", "columns by chance", result.columns.random))
    for one, many, rows in protected:
        for row in rows:
            name = f"{row.count:,} {one if row.count == 1 else many}"
            yield f"| {name} | {100 * row.parameters:.2g} % | {points_text(row.a_star)} |"
    yield ""


def refresh(text: str, found: Mapping[str, Sensitivity]) -> str:
    """The document with its tables made current."""
    if not _MARKS.search(text):
        raise SystemExit("the document has no marks of the trained networks: put them where the tables shall stand")
    lines = [*effects_table(found), *(line for pair in found.items() for line in layers_table(*pair))]
    return _MARKS.sub(lambda marks: f"{marks[1]}\n" + "\n".join(lines) + f"\n{marks[2]}", text)


def draw(found: Mapping[str, Sensitivity], path: Path) -> None:
    """Costs at equal MVM error, and how many times the chip's own figure is tolerated, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 5.0), layout="constrained")
    costs, factors = figure.subplots(1, 2)
    rows = effects(found)
    _draw_costs(costs, found, {title: row for title, row in rows.items() if any(each.equal for each in row.values())})
    scaled = {title: row for title, row in rows.items() if any(drawn_factor(each) for each in row.values())}
    _draw_factors(factors, found, scaled)
    costs.legend(loc="lower right", frameon=False)
    figure.savefig(path)


def _draw_costs(axes: Any, found: Mapping[str, Sensitivity], rows: Mapping[str, dict[str, Row]]) -> None:
    for number, label in enumerate(found):
        width = 0.8 / len(found)
        places = [len(rows) - 1 - place + 0.4 - width * (number + 0.5) for place in range(len(rows))]
        equals = [row[label].equal if label in row else None for row in rows.values()]
        shown = [(place, equal.loss) for place, equal in zip(places, equals, strict=True) if equal]
        losses = [loss for _, loss in shown]
        axes.barh(
            [place for place, _ in shown],
            [100 * loss.mean for loss in losses],
            width,
            xerr=error_bars(losses),
            color=_COLOURS[number],
            label=label,
            capsize=2,
        )
    axes.set_yticks(range(len(rows)), list(rows)[::-1], fontsize="small")
    axes.axvline(0, color="black", linewidth=0.5)
    error = round(100 * (next(iter(found.values())).target_error or 0))
    axes.set(title=f"what costs most at {error} % MVM error", xlabel="loss of A* (points)")


def _draw_factors(axes: Any, found: Mapping[str, Sensitivity], rows: Mapping[str, dict[str, Row]]) -> None:
    titles = sorted(rows, key=lambda title: -min(drawn_factor(row) or inf for row in rows[title].values()))
    for number, label in enumerate(found):
        for place, title in enumerate(titles):
            row = rows[title].get(label)
            if row is None or row.tolerance is None or not drawn_factor(row):
                continue
            tolerance, height = row.tolerance, place - 0.12 * (2 * number - len(found) + 1)
            ends = [end for end in (tolerance.low, tolerance.high) if end and isfinite(end)]
            if len(ends) == 2:
                axes.plot(ends, [height, height], color=_COLOURS[number], linewidth=1)
            axes.plot(drawn_factor(row), height, "o" if isfinite(tolerance.level) else ">", color=_COLOURS[number])
    axes.set_yticks(range(len(titles)), titles, fontsize="small")
    axes.axvline(1, color="grey", linestyle=":")
    axes.set_xscale("log")
    threshold = {f"{100 * result.threshold:g}" for result in found.values()}
    axes.set(title=f"tolerated until A* {' or '.join(sorted(threshold))} %", xlabel="times the chip's own")


def main() -> None:
    found = read_all()
    DOCUMENT.write_text(refresh(DOCUMENT.read_text(), found))
    draw(found, IMAGE / "sensitivity-trained.svg")


if __name__ == "__main__":
    main()

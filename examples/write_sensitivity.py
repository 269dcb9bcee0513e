"""The table and plot of the trained networks in docs/sensitivity.md, from docs/results/sensitivity/*.json.

    python examples/write_sensitivity.py

The tables stand between two marks in the document; what is written by hand around them stays.
"""

import json
import re
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENT, RESULTS, IMAGE = DOCS / "sensitivity.md", DOCS / "results" / "sensitivity", DOCS / "images"
_MARKS = re.compile(
    r"(<!-- trained networks; do not edit below -->\n).*?(<!-- end of the trained networks -->)", re.DOTALL
)
#: What networks are called, in this order.
_LABELS = {"fashion": "CNN", "characters": "LSTM", "transformer": "transformer"}
_COLOURS = ("tab:blue", "tab:orange", "tab:green")

Found = dict[str, Any]


def read_all(folder: Path = RESULTS) -> dict[str, Found]:
    """The results by label."""
    paths = {path.stem: path for path in folder.glob("*.json")}
    if not paths:
        raise SystemExit(f"{folder} has no results: run study_sensitivity.py")
    return {label: json.loads(paths[name].read_text()) for name, label in _LABELS.items() if name in paths}


def effects(found: Mapping[str, Found]) -> dict[str, dict[str, Found]]:
    """Rows by title and network, the costliest at equal MVM error first, of those that cost or stand something."""
    rows: dict[str, dict[str, Found]] = {}
    for label, result in found.items():
        for row in result["effects"]:
            if row["equal"] or row["tolerance"]:
                rows.setdefault(row["title"], {})[label] = row
    return dict(sorted(rows.items(), key=lambda pair: -max(cost(row) for row in pair[1].values())))


def cost(row: Found) -> float:
    """Points of A* at equal MVM error; less than any where the effect does not reach it."""
    return 100 * row["equal"]["loss"]["mean"] if row["equal"] else -inf


def effects_table(found: Mapping[str, Found]) -> Iterator[str]:
    """Markdown: of each effect what it costs at equal MVM error, and how much of it is tolerated."""
    target = round(100 * next(iter(found.values()))["target_error"])
    head = ["effect", "the chip's"]
    head += [f"{label}: loss at {target} % MVM error" for label in found]
    head += [f"{label}: tolerated up to" for label in found]
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for title, rows in effects(found).items():
        cells = [title, own(next(iter(rows.values())))]
        cells += [
            points(rows[label]["equal"]["loss"]) if label in rows and rows[label]["equal"] else "" for label in found
        ]
        cells += [tolerated(rows[label]) if label in rows else "" for label in found]
        yield f"| {' | '.join(cells)} |"
    yield ""


def layers_table(label: str, result: Found, most: int = 6) -> Iterator[str]:
    """Markdown: the layers that cost most, and what is won where the first so many, or columns, are exempt."""
    total = sum(layer["parameters"] for layer in result["layers"])
    yield f"| {label}: layer | share of weights | gain if exempt |"
    yield "|---|---|---|"
    for layer in result["layers"][:most]:
        yield f"| `{layer['matrix']}` | {100 * layer['parameters'] / total:.1f} % | {points(layer['gain'])} |"
    yield ""
    yield f"| {label}: exempt | share of weights | A* (%) |"
    yield "|---|---|---|"
    protected = [("layer", "layers", result["layers_protected"])]
    if result["columns"]:
        protected.append(("column", "columns", result["columns"]["protected"]))
        protected.append(("column by chance", "columns by chance", result["columns"]["random"]))
    for one, many, rows in protected:
        for row in rows:
            name = f"{row['count']:,} {one if row['count'] == 1 else many}"
            yield f"| {name} | {100 * row['parameters']:.2g} % | {points(row['a_star'])} |"
    yield ""


def own(row: Found) -> str:
    """The chip's own."""
    if row["kind"] == "value" or row["figure"] in (False, "off"):
        return "off"
    return f"{row['figure']} bits" if row["kind"] == "bits" else f"{row['figure']:g}"


def points(value: Found) -> str:
    """A mean with its interval, in points."""
    mean, low, high = (100 * value[key] if value[key] is not None else None for key in ("mean", "low", "high"))
    mean, low, high = (None if value is None else round(value, 1) + 0.0 for value in (mean, low, high))
    return f"{mean}" if low is None or high is None else f"{mean} [{low}, {high}]"


def tolerated(row: Found) -> str:
    """As in ``aimc sensitivity``."""
    found, unit = row["tolerance"], {"factor": "x", "bits": " bits"}.get(row["kind"], "")
    if found is None:
        return ""
    if found["level"] is None:
        return "own bits needed" if row["kind"] == "bits" else f"> {short(found['measured'][-1][0])}{unit}"
    if found["low"] is None:
        return f"{short(found['level'])}{unit}"
    high = "more" if found["high"] is None else short(found["high"])
    return f"{short(found['level'])}{unit} [{short(found['low'])}, {high}]"


def short(value: float) -> str:
    return f"{float(f'{value:.2g}'):g}"


def refresh(text: str, found: Mapping[str, Found]) -> str:
    """The document with its tables made current."""
    if not _MARKS.search(text):
        raise SystemExit("the document has no marks of the trained networks: put them where the tables shall stand")
    lines = [*effects_table(found), *(line for pair in found.items() for line in layers_table(*pair))]
    return _MARKS.sub(lambda marks: f"{marks[1]}\n" + "\n".join(lines) + f"\n{marks[2]}", text)


def draw(found: Mapping[str, Found], path: Path) -> None:
    """Costs at equal MVM error, and how many times the chip's own figure is tolerated, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 5.0), layout="constrained")
    costs, factors = figure.subplots(1, 2)
    rows = effects(found)
    _draw_costs(
        costs, found, {title: row for title, row in rows.items() if any(each["equal"] for each in row.values())}
    )
    scaled = {title: row for title, row in rows.items() if any(_factor(each) for each in row.values())}
    _draw_factors(factors, found, scaled)
    costs.legend(loc="lower right", frameon=False)
    figure.savefig(path)


def _draw_costs(axes: Any, found: Mapping[str, Found], rows: Mapping[str, dict[str, Found]]) -> None:
    for number, label in enumerate(found):
        width = 0.8 / len(found)
        places = [len(rows) - 1 - place + 0.4 - width * (number + 0.5) for place in range(len(rows))]
        losses = [
            row[label]["equal"]["loss"] if label in row and row[label]["equal"] else None for row in rows.values()
        ]
        shown = [(place, loss) for place, loss in zip(places, losses, strict=True) if loss]
        means = [100 * loss["mean"] for _, loss in shown]
        ends = [
            [
                max(0.0, 100 * sign * (loss["mean"] - (loss["mean"] if loss[key] is None else loss[key])))
                for _, loss in shown
            ]
            for sign, key in ((1, "low"), (-1, "high"))
        ]
        axes.barh(
            [place for place, _ in shown], means, width, xerr=ends, color=_COLOURS[number], label=label, capsize=2
        )
    axes.set_yticks(range(len(rows)), list(rows)[::-1], fontsize="small")
    axes.axvline(0, color="black", linewidth=0.5)
    error = round(100 * next(iter(found.values()))["target_error"])
    axes.set(title=f"what costs most at {error} % MVM error", xlabel="loss of A* (points)")


def _draw_factors(axes: Any, found: Mapping[str, Found], rows: Mapping[str, dict[str, Found]]) -> None:
    titles = sorted(rows, key=lambda title: -min(_factor(row) or inf for row in rows[title].values()))
    for number, label in enumerate(found):
        for place, title in enumerate(titles):
            row = rows[title].get(label)
            if row is None or not _factor(row):
                continue
            tolerance, height = row["tolerance"], place - 0.12 * (2 * number - len(found) + 1)
            endless = tolerance["level"] is None
            ends = [end for end in (tolerance["low"], tolerance["high"]) if end]
            if len(ends) == 2:
                axes.plot(ends, [height, height], color=_COLOURS[number], linewidth=1)
            axes.plot(_factor(row), height, ">" if endless else "o", color=_COLOURS[number])
    axes.set_yticks(range(len(titles)), titles, fontsize="small")
    axes.axvline(1, color="grey", linestyle=":")
    axes.set_xscale("log")
    threshold = {f"{100 * result['threshold']:g}" for result in found.values()}
    axes.set(title=f"tolerated until A* {' or '.join(sorted(threshold))} %", xlabel="times the chip's own")


def _factor(row: Found) -> float:
    """How many times the chip's own figure is tolerated; 0 where it is no factor."""
    found = row["tolerance"]
    if row["kind"] != "factor" or found is None:
        return 0.0
    return float(found["measured"][-1][0] if found["level"] is None else found["level"])


def main() -> None:
    found = read_all()
    DOCUMENT.write_text(refresh(DOCUMENT.read_text(), found))
    draw(found, IMAGE / "sensitivity-trained.svg")


if __name__ == "__main__":
    main()

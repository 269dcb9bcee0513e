"""The tables and plots of docs/results.md from docs/results/*.json.

    python examples/write_results.py

Each table stands between two marks of its study in the document; what is written by hand around them stays.
"""

import json
import re
from collections.abc import Iterator, Sequence
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any

from aimc_compiler.study.interval import ci95_of
from aimc_compiler.units import print_time

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENT, RESULTS, IMAGES = DOCS / "results.md", DOCS / "results", DOCS / "images"
_MARKS = re.compile(
    r"(<!-- results of ([a-z, -]+); do not edit below -->\n).*?(<!-- end of the results -->)", re.DOTALL
)

#: Of the studies in the document.
_ORDER = {name: place for place, name in enumerate(("fashion", "characters", "digits", "transformer"))}

Study = dict[str, Any]


def read_studies(folder: Path = RESULTS) -> dict[str, Study]:
    """The collected studies by name, in the order of the document."""
    paths = sorted(folder.glob("*.json"), key=lambda path: (_ORDER.get(path.stem, len(_ORDER)), path.stem))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def a_star(study_cell: Study, value: float) -> float:
    """Normalised accuracy in %, against the digital baseline on the same samples (Rasch et al. 2023, equation 6)."""
    chance, digital = study_cell["result"]["chance"], study_cell["digital"]
    return 100 * (value - chance) / (digital - chance)


def interval(cell: Study, row: Study) -> float:
    """Half of the 95 % confidence interval of A* over chips, in points."""
    low, high = row["ci95"]
    return (a_star(cell, high) - a_star(cell, low)) / 2


def titled(cell: Study, seeds: str = "") -> str:
    """What a line is called. seeds: what is said of several, instead of the cell's own seed."""
    setting = cell["cell"]
    if setting["training"] == "float":
        kind, _, share = setting["ranges"].partition(":")
        name = f"direct, range {f'{share} %' if share else kind}"
    else:
        training, _, seed = setting["training"].rpartition("-")
        name = f"{_LABELS.get(training, training)}, {seeds or f'seed {seed}'}"
    return name + (", norms of the aged chip" if setting["norms"] else "")


#: What trainings are called.
_LABELS = {
    "adapted": "hardware-aware",
    "baseline": "hardware-aware, R23",
    "baseline-long": "hardware-aware, R23, 30 epochs",
    "clip-long": "clip, 30 epochs",
    "frozen-long": "frozen, 30 epochs",
    "default": "default recipe",
    "default-unfrozen": "default recipe, unfrozen",
    "hermes": "hardware-aware, for `hermes`",
    "neurram": "hardware-aware, for `neurram`",
}

#: The training that a study recommends, where it is not "adapted".
_RECOMMENDED = {"fashion": "default"}


def recommended(study: Study) -> str:
    """The training that a study recommends."""
    return _RECOMMENDED.get(study["name"], "adapted")


def cells_on(study: Study, chip: str) -> list[Study]:
    """The cells of one chip, in the order of tables."""
    return sorted((cell for cell in study["cells"].values() if cell["cell"]["chip"] == chip), key=order)


def table(study: Study) -> Iterator[str]:
    """Markdown: a line a cell; those of one chip, which share their times, stand together."""
    chips = list(dict.fromkeys(cell["cell"]["chip"] for cell in study["cells"].values()))
    for chip in sorted(chips, key=lambda name: (name != "analog-fabric", name)):
        cells = cells_on(study, chip)
        times = [print_time(row["time_s"]) for row in cells[0]["result"]["times"]]
        head = ["A* on `" + chip + "` (%)", "digital", *times, "samples x chips"]
        yield f"| {' | '.join(head)} |"
        yield "|" + "---|" * len(head)
        for cell in cells:
            values = [f"{a_star(cell, row['mean']):.1f} ± {interval(cell, row):.1f}" for row in cell["result"]["times"]]
            digital = f"{100 * cell['digital']:.2f} %"
            count = f"{cell['result']['n_samples']} x {cell['result']['n_chips']}"
            yield f"| {' | '.join([titled(cell), digital, *values, count])} |"
        yield ""


def summary(studies: Sequence[Study], chip: str = "analog-fabric") -> Iterator[str]:
    """Markdown: a line a study: A* an hour and a year after programming as mapped directly, with the better of its
    ranges, and after the training that it recommends, of each seed."""
    hour_s, year_s = 3600.0, 365 * 86400.0
    head = ["network", "tiles", *(f"{kind}, {when}" for kind in ("direct", "trained") for when in ("1 h", "1 year"))]
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for study in studies:
        cells = [cell for cell in cells_on(study, chip) if not cell["cell"]["norms"]]
        direct = [cell for cell in cells if cell["cell"]["training"] == "float"]
        adapted = [cell for cell in cells if cell["cell"]["training"].rpartition("-")[0] == recommended(study)]
        values = [f"{max(at_time(cell, time_s) for cell in direct):.1f}" for time_s in (hour_s, year_s)]
        values += [", ".join(f"{at_time(cell, time_s):.1f}" for cell in adapted) for time_s in (hour_s, year_s)]
        yield f"| {' | '.join([study['title'], str(cells[0]['tiles']), *values])} |"
    yield ""


def at_time(cell: Study, time_s: float) -> float:
    """A* so many seconds after programming."""
    return next(a_star(cell, row["mean"]) for row in cell["result"]["times"] if row["time_s"] == time_s)


def together(studies: Sequence[Study], chip: str = "analog-fabric") -> Iterator[str]:
    """Markdown: of studies that are alike but for their data a line each, and their mean: accuracy of the digital
    network, and of chips less that, sample by sample, first and last in time. ± is over samples, of a training that has
    several seeds over those, and of the mean over studies, in which one that chose settings (its title says so) does
    not count."""
    rows, names, places = [], [], (0, -1)
    for study in studies:
        columns = by_training(cells_on(study, chip))
        if names and names != [*columns]:
            raise SystemExit(f"{study['title']} has other lines than the study before it: score both")
        names = [*columns]
        rows.append((study["title"].split(", ")[-1], [*columns.values()]))
    first = rows[0][1][0][0]
    times = [print_time(first["result"]["times"][place]["time_s"]) for place in places]
    head = ["less digital (points)", "digital (%)", *(f"{name}: {when}" for name in names for when in times)]
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for title, columns in rows:
        values = [signed(*apart(cells, place)) for cells in columns for place in places]
        digital = f"{100 * columns[0][0]['digital']:.1f}"
        yield f"| {' | '.join([title, digital, *values])} |"
    counted = [columns for title, columns in rows if "chose" not in title]
    means = [
        signed(*spread([sum(apart(columns[number], place)) / 2 for columns in counted]))
        for number in range(len(names))
        for place in places
    ]
    digital = f"{100 * fmean(columns[0][0]['digital'] for columns in counted):.1f}"
    others = "" if len(counted) == len(rows) else "other "
    yield f"| mean of the {others}{len(counted)} | {' | '.join([digital, *means])} |"
    yield ""


def by_training(cells: Sequence[Study]) -> dict[str, list[Study]]:
    """Cells by what they are called, those of several seeds together."""
    found: dict[str, list[Study]] = {}
    for cell in cells:
        found.setdefault(titled(cell, "any seed"), []).append(cell)
    return {titled(alike[0], f"{len(alike)} seeds" if len(alike) > 1 else ""): alike for alike in found.values()}


def apart(cells: Sequence[Study], place: int) -> tuple[float, float]:
    """The 95 % confidence interval, in points, of what chips are better than the digital network: over samples, or over
    seeds."""
    pairs = [cell["paired"][place] for cell in cells]
    if len(pairs) == 1:
        low, high = pairs[0]["ci95"]
        return 100 * low, 100 * high
    return spread([100 * pair["mean"] for pair in pairs])


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of a mean (Student's); nan of one value."""
    return ci95_of(values) or (nan, nan)


def signed(low: float, high: float, digits: int = 1) -> str:
    """An interval as its middle and half of it."""
    return f"{(low + high) / 2:+.{digits}f} ± {(high - low) / 2:.{digits}f}"


def differences(study: Study, chip: str = "analog-fabric") -> Iterator[str]:
    """Markdown: A* of each training less that of the baseline recipe, chip by chip, which are made alike; nothing where
    a study has none."""
    cells, lines = cells_on(study, chip), []
    for cell in cells:
        training, _, seed = cell["cell"]["training"].rpartition("-")
        long = "-long" if training.endswith("-long") else ""
        wanted = {**cell["cell"], "training": f"baseline{long}-{seed}"}
        against = next((other for other in cells if other["cell"] == wanted and other is not cell), None)
        if against is not None:
            rows = zip(cell["result"]["times"], against["result"]["times"], strict=True)
            values = [difference(cell, against, *pair) for pair in rows]
            lines.append(f"| {titled(cell)} | {' | '.join(values)} |")
    if lines:
        times = [print_time(row["time_s"]) for row in cells[0]["result"]["times"]]
        yield f"| A* less that of R23's recipe, chip by chip | {' | '.join(times)} |"
        yield "|" + "---|" * (1 + len(times))
        yield from lines
        yield ""


def difference(cell: Study, against: Study, row: Study, other: Study) -> str:
    """Mean over chips and half of its 95 % confidence interval (Student's), in points of A*."""
    pairs = zip(row["values"], other["values"], strict=True)
    return signed(*spread([a_star(cell, one) - a_star(against, two) for one, two in pairs]), digits=2)


def order(cell: Study) -> tuple[bool, bool, str]:
    """Direct mapping first, then the baseline recipe, then others."""
    setting = cell["cell"]
    return setting["training"] != "float", not setting["training"].startswith(("baseline", "adapted")), titled(cell)


def refresh(text: str, studies: dict[str, Study]) -> str:
    """The document with its tables made current. Raises SystemExit where a study has no results."""

    def fill(found: re.Match[str]) -> str:
        if found[2] == "all":
            return f"{found[1]}\n" + "\n".join(summary(one_each(studies))) + f"\n{found[3]}"
        names = found[2].split(", ")
        missing = [name for name in names if name not in studies]
        if missing:
            raise SystemExit(f"{RESULTS} has no {', '.join(missing)}: collect the study, or take its marks out")
        chosen = [studies[name] for name in names]
        lines = [*together(chosen)] if len(chosen) > 1 else [*table(chosen[0]), *differences(chosen[0])]
        return f"{found[1]}\n" + "\n".join(lines) + f"\n{found[3]}"

    return _MARKS.sub(fill, text)


def one_each(studies: dict[str, Study]) -> list[Study]:
    """The studies without those of single speakers."""
    return [study for name, study in studies.items() if not name.startswith("digits-")]


def draw(studies: Sequence[Study], path: Path) -> None:
    """What of A* is lost over time on analog-fabric, a panel a study, with the interval over chips: mapped directly, by
    R23's recipe and by the recommended training; of several seeds the first."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = min(2, len(studies))
    deep = -(-len(studies) // columns)
    figure = Figure(figsize=(5.2 * columns, 6.0 * deep), layout="constrained")
    panels = figure.subplots(deep, columns, squeeze=False).flatten()
    for axes in panels[len(studies) :]:
        axes.set_axis_off()
    for axes, study in zip(panels, studies, strict=False):
        shown = ("float", "baseline-0", f"{recommended(study)}-0")
        drawn = [cell for cell in cells_on(study, "analog-fabric") if cell["cell"]["training"] in shown]
        colours: dict[Any, Any] = {}
        for cell in drawn:
            setting, rows = cell["cell"], cell["result"]["times"]
            times, lost = [row["time_s"] for row in rows], [100 - a_star(cell, row["mean"]) for row in rows]
            style = ":" if setting["norms"] else "--" if setting["training"] == "float" else "-"
            line = axes.errorbar(
                times,
                lost,
                [interval(cell, row) for row in rows],
                label=titled(cell),
                color=colours.get((setting["training"], setting["ranges"])),
                linestyle=style,
                marker="o",
                ms=3,
                capsize=2,
                lw=1.2,
            )
            colours.setdefault((setting["training"], setting["ranges"]), line[0].get_color())
        _style(axes, study["title"], times)
        low, high = axes.dataLim.intervaly
        axes.set_ylim(high + 0.1 * abs(high) + 0.1, min(0.5, 0.8 * low) if low > 0 else 1.2 * low - 0.1)
    for axes in panels[::columns]:
        axes.set_ylabel("lost of A* (points)")
    with rc_context({"svg.hashsalt": "results"}):  # the same results, the same bytes
        figure.savefig(path, metadata={"Date": None})


def _style(axes: Any, title: str, times: list[float]) -> None:
    """Linear up to a point, logarithmic from there; what is better lies higher."""
    ticks = [0, 0.5, 1, 2, 3, 5, 10, 20, 30]
    axes.set_yscale("symlog", linthresh=1)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.set_yticks([], minor=True)
    axes.grid(axis="y", color="0.9", lw=0.6)
    axes.set_xscale("log")
    axes.set_xticks(times, [print_time(value) for value in times], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("after programming")
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)


def main() -> None:
    studies = read_studies()
    DOCUMENT.write_text(refresh(DOCUMENT.read_text(), studies))
    draw(one_each(studies), IMAGES / "results.svg")


if __name__ == "__main__":
    main()

"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from aimc_compiler.calibration import OUTPUT_METHOD
from aimc_compiler.errors import DataError, RuleError
from aimc_compiler.graph import PRESETS, load_rules
from aimc_compiler.units import parse_times

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Seed = Annotated[int, typer.Option(help="Seed of every random stream: same seed, same bytes.")]
Artifact = Annotated[Path, typer.Argument(help="A compiled network (.aimc).")]
Batch = Annotated[int, typer.Option(min=1, help="Samples computed at once (.npz data).")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first samples only.")]
EntryName = Annotated[
    str | None, typer.Option("--entry", metavar="NAME", help="Of a program of several entries (default: the first).")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a figure of the chip, as in tile.rows=128; repeatable."),
]
RANGES = "percentile:99.9"
RANGES_HELP = "How input ranges are set: percentile:P, k-sigma:K, mse or max."
OutputRanges = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD",
        help="How output bounds are set where the chip's adc.out_bound is calibrated: as --ranges.  "
        f"[default: {OUTPUT_METHOD}]",
    ),
]
Recalibrate = Annotated[
    str,
    typer.Option(
        metavar="always|never|PERIOD|TIMES",
        help="When tiles are read for drift compensation: at every time asked for, never after programming, at the "
        "multiples of a period (1h), or at several times (0s,1d).",
    ),
]


PrecisionName = Annotated[
    str, typer.Option(metavar="auto|fast|exact", help="Integer products where they are built, or float32.")
]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it: .svg, .png or .pdf.")]


def read_time(text: str) -> float:
    """The one time of ``--time``. Raises DataError on several."""
    times = parse_times(text)
    if len(times) != 1:
        raise DataError(f"--time {text} is {len(times)} times: give one, as in 1day")
    return times[0]


RuleOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN=analog|digital|groups_per_tile:N",
        help="Where matrices go, by module path; repeatable, first match wins.",
    ),
]
NamedRules = Annotated[
    str | None,
    typer.Option(
        "--rules", metavar="NAME|FILE.yaml", help=f"Rules after those of --rule: {', '.join(PRESETS)}, or a YAML file."
    ),
]


def read_rule_options(texts: list[str], named: str | None) -> list[Any]:
    """Rules of the command line, in order: those written out, then a preset's or a file's."""
    rules: list[Any] = []
    for text in texts:
        pattern, equals, place = text.rpartition("=")
        setting, _, groups = place.partition(":")
        if equals and setting == "groups_per_tile" and groups.isdecimal():
            rules.append((pattern, {setting: int(groups)}))
            continue
        if not equals or place not in ("analog", "digital"):
            raise RuleError(
                f"--rule {text!r} is no rule: write PATTERN=analog, PATTERN=digital or PATTERN=groups_per_tile:N, "
                "as in 'head=digital'"
            )
        rules.append((pattern, {"analog": place == "analog"}))
    if named is None:
        return rules
    if not named.endswith((".yaml", ".yml")):
        return [*rules, named]
    loaded = load_rules(named)
    return [*rules, *(loaded if isinstance(loaded, list) else [loaded])]

"""What the examples with trained networks share: their options, and how they print what was measured."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from aimc_compiler.chip import ChipSpec, load_chip
from aimc_compiler.compiler import CompiledModel
from aimc_compiler.report import evaluation_json
from aimc_compiler.study import Evaluation
from aimc_compiler.units import print_time


def options_of(doc: str | None, data: str) -> argparse.ArgumentParser:
    """A parser with the options that every example has. data: what ``--data`` names."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=data)
    parser.add_argument("--chip", default="analog-fabric", help="a built-in chip or a spec file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one figure of the chip")
    parser.add_argument("--chips", type=int, default=10, help="programmed chips to average over")
    parser.add_argument("--seed", type=int, default=0, help="of the chips")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of tables")
    return parser


def chip_of(options: argparse.Namespace) -> ChipSpec:
    """The chip that ``--chip`` and ``--set`` name."""
    return load_chip(options.chip, overrides=tuple(options.set))


def print_results(compiled: CompiledModel, results: Mapping[str, Evaluation], *, as_json: bool) -> None:
    """One table a result: mean over chips, its standard error, A*. Metrics are printed as percentages."""
    if as_json:
        print(json.dumps({name: evaluation_json(result) for name, result in results.items()}, indent=2))
        return
    used = compiled.utilization
    print(f"{compiled.chip.name}: {used.tiles_used} tiles, {100 * used.utilization:.1f} % of their cells used")
    for name, result in results.items():
        print(f"\n{name}, {result.n_samples} samples, {result.n_chips} chips, seed {result.seed}")
        print(f"{'after programming':<20}{result.metric:>28}{'A*':>10}")
        print(f"{'float network':<20}{100 * result.float_metric:>28.2f}{'100.0 %':>10}")
        for row in result.times:
            error = "" if row.standard_error is None else f" ± {100 * row.standard_error:.2f}"
            a_star = "unknown" if row.a_star is None else f"{100 * row.a_star:.1f} %"
            print(f"{print_time(row.time_s):<20}{f'{100 * row.mean:.2f}{error}':>28}{a_star:>10}")

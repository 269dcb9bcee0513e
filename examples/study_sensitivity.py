"""What a network of the studies is sensitive to, an hour after programming: for docs/sensitivity.md.

    python examples/study_sensitivity.py --data /usr/share/datasets/fashion-mnist fashion --name frozen-long
    python examples/study_sensitivity.py --data input.txt characters
    python examples/write_sensitivity.py

The weights are those that ``study_NAME.py`` trained for the chip, in ``--out``. Weights stay fixed; one effect, layer
or figure is changed at a time. A* is held to 98 % here, which they reach by themselves.
"""

import argparse
import importlib
from pathlib import Path

from study import Cell, compiled_for, load_float, scored

import aimc_compiler as aimc
from aimc_compiler.cli.sensitivity import print_study
from aimc_compiler.report.sensitivity import save_sensitivity

HOUR_S, THRESHOLD = 3600.0, 0.98


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="as of the study")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the trainings")
    parser.add_argument("study", choices=("fashion", "characters", "transformer", "transformer-analog"))
    parser.add_argument("--name", default="adapted", help="of the training")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1000, help="of the test set, the first so many")
    parser.add_argument("--parts", default="effects,layers,columns,sweeps", help="what to study")
    parser.add_argument("--into", type=Path, default=Path("docs/results/sensitivity"), help="where the file goes")
    options = parser.parse_args()
    module, _, kind = options.study.partition("-")
    study = getattr(importlib.import_module(f"study_{module}"), kind.upper() or "STUDY")
    split = study.split(options.data)
    compiled = compiled_for(study, split, options.out, Cell(f"{options.name}-{options.seed}"))
    x, y = (part[: options.samples] for part in split.test)
    task = study.digital(split)
    found = aimc.sensitivity(
        compiled,
        zip(x.split(study.batch), y.split(study.batch), strict=True),
        study.metric,
        study.chance,
        baseline=scored(load_float(study, options.out), (x, y), task, study.batch),
        time_s=HOUR_S,
        n_chips=options.chips,
        threshold=THRESHOLD,
        parts=options.parts.split(","),
        loss=task.loss,
    )
    options.into.mkdir(parents=True, exist_ok=True)
    save_sensitivity(found, options.into / f"{options.study}.json")
    print_study(found)


if __name__ == "__main__":
    main()

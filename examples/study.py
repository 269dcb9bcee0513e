"""What the studies of hardware-aware training share: digital training, training for a chip, scores on chips.

A study is a script of its own (``study_fashion.py``, ...) that names a network, its data and its settings. Commands:

    python examples/study_fashion.py --data DATA float                 # the digital baseline
    python examples/study_fashion.py --data DATA train --seed 0        # hardware-aware training from it
    python examples/study_fashion.py --data DATA score                 # every cell of the table that can be scored
    python examples/study_fashion.py --data DATA collect               # docs/results/NAME.json, for write_results.py
    python examples/study_fashion.py --data DATA compile --seed 0      # NETWORK.aimc, for aimc run or sensitivity

Trained weights go to ``--out`` (``runs``), one folder a training; each score is one JSON file there, and what is there
already is not computed again. Two commands may share the folder.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.files import whole_file
from aimc_compiler.metrics import find_metric, scores_in
from aimc_compiler.report import evaluation_json
from aimc_compiler.study.interval import PairedScores
from aimc_compiler.training import Recipe, Task, parameter_groups, prepare_hwa, train
from aimc_compiler.training.loop import WEIGHTS, EpochResult

FLOAT = "float"
#: Input ranges of Rasch et al. (2023), for trainings that are not by the default's, which give up fewer inputs.
NARROW: dict[str, float] = {"range_sigmas": 3.0, "range_inside": 0.95}
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Batches:
    """Batches of a set in an order that is drawn anew each time, from torch's generator. augment: of inputs."""

    x: Tensor
    y: Tensor
    size: int
    augment: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.x) // self.size

    def __iter__(self) -> Iterator[Pair]:
        for chosen in torch.randperm(len(self.x))[: len(self) * self.size].split(self.size):
            x = self.x[chosen]
            yield (x if self.augment is None else self.augment(x)), self.y[chosen]


@dataclass(frozen=True)
class Split:
    """train: what is learned from; validation: what settings were chosen on; test: what is reported; calibration:
    inputs of the training set for input ranges, batch norms on aged chips and output bounds."""

    train: Any
    validation: Pair
    test: Pair
    calibration: Tensor


@dataclass(frozen=True)
class Cell:
    """A line of the result table. training: of the weights; chip; ranges: of direct mapping; norms: whether batch norms
    are measured on the aged chip; samples: of the test set, 0 for all."""

    training: str
    chip: str = "analog-fabric"
    ranges: str = ""
    norms: bool = False
    chips: int = 25
    samples: int = 0

    @property
    def key(self) -> str:
        parts = (self.training, self.chip, self.ranges.replace(":", ""), "norms" if self.norms else "")
        return "--".join(part for part in parts if part)


@dataclass(frozen=True)
class Training:
    """For a chip, by a recipe. changes: settings of the task that are others here."""

    chip: str
    recipe: Recipe
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """split: of the data in a folder or file. network: a fresh one. digital, adapted: tasks of digital training and,
    from its network, of training for a chip. trainings: for chips, by name. cells: of the table. chance: of the
    metric, None for its own; batch: samples at once on a chip. rules: which matrices are analog, as of ``compile``.
    float_of: the study whose digital network this one has, where it trains none."""

    name: str
    title: str
    split: Callable[[Path], Split]
    network: Callable[[], nn.Module]
    digital: Callable[[Split], Task]
    adapted: Callable[[Split, nn.Module], Task]
    trainings: Mapping[str, Training]
    cells: Sequence[Cell]
    metric: Any = "accuracy"
    chance: float | None = None
    batch: int = 250
    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    float_of: str = ""


def train_digital(study: Study, split: Split, out: Path, seed: int, epochs: int | None) -> None:
    """Plain torch: no chip is involved."""
    task, history = lasting(study.digital(split), epochs), []
    torch.manual_seed(seed)
    network = task.network()
    optimiser = task.optimiser(parameter_groups(network, task.weight_decay))
    schedule = task.scheduler(optimiser, task.epochs * len(task.train)) if task.scheduler else None
    for epoch in range(1, task.epochs + 1):
        start, total = time.monotonic(), 0.0
        network.train()
        for inputs, targets in task.train:
            step_loss = task.loss(network(inputs), targets)
            optimiser.zero_grad(set_to_none=True)
            step_loss.backward()
            if task.clip_gradient is not None:
                nn.utils.clip_grad_norm_(network.parameters(), task.clip_gradient)
            optimiser.step()
            if schedule is not None:
                schedule.step()
            total += step_loss.item()
        found, loss = scored(network.eval(), split.validation, task, study.batch), total / len(task.train)
        history.append({"epoch": epoch, "loss": loss, "validation": found})
        seconds = time.monotonic() - start
        print(f"epoch {epoch:3d}  loss {loss:.4f}  validation {found:.4f}  {seconds:.0f} s", flush=True)
    test = scored(network, split.test, task, study.batch)
    print(f"test {test:.4f}")
    folder = out / study.name / FLOAT
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "training.json", {"seed": seed, "epochs": history, "test": test})
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / WEIGHTS)


def scored(network: nn.Module, data: Pair, task: Task, batch: int) -> float:
    """The task's metric of a float network."""
    with torch.inference_mode():
        parts = [network(x) for x in data[0].split(batch)]
    return task.measured(parts, list(data[1].split(batch)), "the float network")


def train_for_chip(study: Study, split: Split, out: Path, name: str, seed: int, epochs: int | None) -> None:
    """``aimc_compiler.training.train`` from the digital network; goes on where it was stopped."""
    training = study.trainings[name]
    chip, recipe = training.chip, training.recipe
    task = study.adapted(split, load_float(study, out))
    task = lasting(replace(task, rules=study.rules, **training.changes), epochs)
    folder = out / study.name / f"{name}-{seed}"

    def report(epoch: EpochResult) -> None:
        chips = " ".join(f"{value:.4f}" for value in epoch.chip_metrics)
        print(
            f"{name}-{seed} epoch {epoch.epoch:3d}  loss {epoch.loss:.4f}  validation {epoch.float_metric:.4f}  "
            f"chips {chips}  {epoch.seconds:.0f} s",
            flush=True,
        )

    start = time.monotonic()
    trained = train(task, chip, recipe, out=folder, seed=seed, resume=True, chips=2, time_s=3600.0, report=report)
    epochs_run = [asdict(epoch) for epoch in trained.epochs]
    record = {"chip": chip, "recipe": asdict(recipe), "seed": seed, "epochs": epochs_run}
    write_json(folder / "training.json", record | {"seconds": time.monotonic() - start})


def lasting(task: Task, epochs: int | None) -> Task:
    """The task with another number of epochs, where one is given."""
    return task if epochs is None else replace(task, epochs=epochs)


def load_float(study: Study, out: Path) -> nn.Module:
    """The digital network, in evaluation mode."""
    network = study.network()
    network.load_state_dict(load_file(weights_of(study, out, FLOAT)))
    return network.eval()


def weights_path(study: Study, out: Path, training: str) -> Path:
    name = study.float_of if training == FLOAT and study.float_of else study.name
    return out / name / training / WEIGHTS


def weights_of(study: Study, out: Path, training: str) -> Path:
    path = weights_path(study, out, training)
    if not path.exists():
        raise SystemExit(f"{path} does not exist: train it first, or name the folder of the runs with --out")
    return path


def compiled_for(study: Study, split: Split, out: Path, cell: Cell) -> aimc.CompiledModel:
    """The network of a cell on its chip."""
    x, network = split.calibration, load_float(study, out)
    if cell.training == FLOAT:
        calibration = x.split(study.batch)
        return aimc.compile(
            network, cell.chip, (x[:1],), calibration=calibration, range_method=cell.ranges, rules=study.rules
        )
    training = study.trainings[cell.training.rpartition("-")[0]]
    prepared = prepare_hwa(network, training.chip, training.recipe, rules=study.rules, example_inputs=(x[:1],))
    prepared.load_state_dict(load_file(weights_of(study, out, cell.training)))
    # Ranges are learned; a chip with other converters than those trained for is calibrated.
    calibration = None if cell.chip == training.chip else x.split(study.batch)
    return aimc.compile(prepared.eval(), cell.chip, (x[:1],), calibration=calibration)


def score(study: Study, split: Split, out: Path, cell: Cell) -> dict[str, Any]:
    """The record of a cell: its settings, and what ``aimc run --json`` would print.

    paired: at each time the mean over samples of what the chips, on average, are better than the digital network, and
    its 95 % confidence interval, for which other samples would be drawn.
    """
    start = time.monotonic()
    compiled = compiled_for(study, split, out, cell)
    count = cell.samples or len(split.test[0])
    x, y = (part[:count] for part in split.test)
    metric = find_metric(study.metric)
    paired = PairedScores(metric)
    chance = study.chance if metric.chance is None else metric.chance(y)
    result = aimc.evaluate(
        compiled,
        zip(x.split(study.batch), y.split(study.batch), strict=True),
        paired.metric.function,
        chance,
        TIMES_S.get(cell.chip),
        cell.chips,
        norms=split.calibration.split(study.batch) if cell.norms else None,
        progress=False,
    )
    network = load_float(study, out)
    with torch.inference_mode():
        outputs = torch.cat([network(part) for part in x.split(study.batch)])
    digital = scores_in(metric.function(outputs, y))
    record = {"cell": asdict(cell), "digital": float(digital.mean()), "tiles": compiled.utilization.tiles_used}
    apart = [paired.of(place, len(result.times), digital) for place in range(len(result.times))]
    record["paired"] = [asdict(each) for each in apart if each is not None]
    result_json = evaluation_json(result) | {"metric": metric.name}
    return record | {"result": result_json, "seconds": time.monotonic() - start}


def save_compiled(study: Study, split: Split, out: Path, name: str, seed: int, chip: str) -> None:
    """The network as a file for ``aimc run``, ``aimc sensitivity`` and the others. name: "float" for direct mapping."""
    training = FLOAT if name == FLOAT else f"{name}-{seed}"
    cell = Cell(training, chip, "percentile:99.9" if name == FLOAT else "")
    path = out / study.name / training / f"{chip}.aimc"
    compiled_for(study, split, out, cell).save(path)
    print(f"wrote {path}")


def score_all(study: Study, split: Split, out: Path, only: str) -> None:
    """Every cell whose weights are there and that no command has scored, or is scoring."""
    folder = out / study.name / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    for cell in study.cells:
        path, taken = folder / f"{cell.key}.json", folder / f"{cell.key}.taken"
        there = weights_path(study, out, cell.training).exists()
        if only not in cell.key or path.exists() or not there:
            continue
        try:
            os.close(os.open(taken, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            print(f"{cell.key}: another command has it; remove {taken} if none does")
            continue
        try:
            write_json(path, score(study, split, out, cell))
        finally:
            taken.unlink()
        times = json.loads(path.read_text())["result"]["times"]
        print(f"{study.name} {cell.key}: " + "  ".join(f"{100 * row['mean']:.2f}" for row in times), flush=True)


def collect(study: Study, out: Path, into: Path) -> None:
    """All scores and trainings of a study as one file."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted((out / study.name / "cells").glob("*.json"))}
    trainings = {
        path.parent.name: json.loads(path.read_text()) for path in sorted((out / study.name).glob("*/training.json"))
    }
    into.mkdir(parents=True, exist_ok=True)
    content = {"name": study.name, "title": study.title}
    write_json(into / f"{study.name}.json", content | {"trainings": trainings, "cells": found})


def write_json(path: Path, content: Any) -> None:
    with whole_file(path, path.with_name(path.name + ".partial"), durable=False) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def main(doc: str | None, studies: Sequence[Study]) -> None:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="see above")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the trainings and scores")
    parser.add_argument("--study", default="", help="of several, the one of this name alone")
    parser.add_argument("command", choices=("float", "train", "score", "collect", "compile"))
    parser.add_argument("--name", default="adapted", help="train, compile: the training's name")
    parser.add_argument("--chip", default="analog-fabric", help="compile: for which chip")
    parser.add_argument("--seed", type=int, default=0, help="float, train, compile: of every draw")
    parser.add_argument("--epochs", type=int, help="float, train: other than the study's, to try something out")
    parser.add_argument("--only", default="", help="score: cells whose name has this")
    parser.add_argument("--into", type=Path, default=Path("docs/results"), help="collect: where the file goes")
    options = parser.parse_args()
    for study in studies:
        if options.study not in ("", study.name) or (options.command == FLOAT and study.float_of):
            continue
        if options.command == "collect":
            collect(study, options.out, options.into)
            continue
        split = study.split(options.data)
        if options.command == FLOAT:
            train_digital(study, split, options.out, options.seed, options.epochs)
        elif options.command == "compile":
            save_compiled(study, split, options.out, options.name, options.seed, options.chip)
        elif options.command == "train":
            train_for_chip(study, split, options.out, options.name, options.seed, options.epochs)
        else:
            score_all(study, split, options.out, options.only)


def one_cycle(rate: float) -> Callable[[torch.optim.Optimizer, int], Any]:
    """Up to the rate in the first 30 % of the steps, and down to nothing."""
    return lambda optimiser, steps: torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.3)


def cells_of(*trainings: str, chips: Mapping[str, int], norms: bool = False) -> Iterator[Cell]:
    """Cells of some trainings, "float" for direct mapping, which has two input ranges, on chips with so many samples
    (0 for all). norms: also with batch norms of the aged chip."""
    for chip, samples in chips.items():
        for training in trainings:
            for ranges in ("max", "percentile:99.9") if training == FLOAT else ("",):
                yield Cell(training, chip, ranges, samples=samples)
                if norms:
                    yield Cell(training, chip, ranges, norms=True, samples=samples)


#: NeuRRAM's resistive devices were measured up to two days.
TIMES_S = {"neurram": (1.0, 3600.0, 86400.0, 172800.0)}

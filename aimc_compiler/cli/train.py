"""`aimc train`: train a task for a chip, epoch by epoch, and score what was trained on programmed chips."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import aimc_compiler as aimc
from aimc_compiler.cli.options import Json, Seed, Set
from aimc_compiler.cli.reference import find_inputs, find_task
from aimc_compiler.cli.terminal import terminal
from aimc_compiler.errors import DataError
from aimc_compiler.executor import as_call
from aimc_compiler.units import parse_times

if TYPE_CHECKING:
    from aimc_compiler.study import Evaluation
    from aimc_compiler.training import EpochResult, Task, Trained

ARTIFACT = "network.aimc"
#: Samples of the training data that set input ranges where training did not.
_CALIBRATION_BATCHES = 10


def train(
    task: Annotated[str, typer.Argument(help="What is trained: file.py:function or package.module:function.")],
    chip: Annotated[str, typer.Option(help="A built-in chip or a spec file.")] = "analog-fabric",
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Settings of training (default: those of docs/training.md)."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for checkpoint, weights and artifact.")] = Path(
        "run"
    ),
    epochs: Annotated[int | None, typer.Option(min=1, help="How often all data is seen (default: the task's).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint, if any.")] = False,
    every: Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints within an epoch.")] = None,
    epoch_chips: Annotated[int, typer.Option(min=0, help="Programmed chips to measure each epoch on.")] = 1,
    times: Annotated[str | None, typer.Option(help="Times of the final score (default: the chip's).")] = None,
    chips: Annotated[int, typer.Option(min=1, help="Programmed chips of the final score.")] = 10,
    seed: Seed = 0,
    sets: Set = None,
    as_json: Json = False,
) -> None:
    """Train a network for a chip (hardware-aware), with checkpoints, and score it over time."""
    from aimc_compiler.training import train as train_task

    spec = aimc.load_chip(chip, overrides=tuple(sets or ()))
    wanted = None if times is None else parse_times(times)
    given = find_task(task)
    given = given if epochs is None else replace(given, epochs=epochs)

    def report(result: "EpochResult") -> None:
        print(_line(result, given), file=sys.stderr, flush=True)  # noqa: T201

    trained = train_task(
        given, spec, recipe, out=out, seed=seed, resume=resume, every=every, chips=epoch_chips, report=report
    )
    compiled, result = _scored(trained, given, spec, wanted, chips, seed, out / ARTIFACT)
    if as_json:
        from aimc_compiler.report import evaluation_json

        found = {"epochs": [_epoch_json(each) for each in trained.epochs], **evaluation_json(result)}
        print(json.dumps({**found, "artifact": str(out / ARTIFACT)}, indent=2))  # noqa: T201
        return
    _print(compiled, result, trained, out)


def rescaled(network: nn.Module, reference: str, batch: int) -> nn.Module:
    """The network with balanced channels, by the first batch of the data; what was done, on standard error."""
    from aimc_compiler.training import rescale_channels

    inputs = find_inputs(reference, batch)
    if not inputs:
        raise DataError(f"--rescale {reference} holds no batch: give at least one")
    args, kwargs = as_call(inputs[0])
    if kwargs:
        raise DataError(f"--rescale {reference} gives keyword inputs, which are not taken here: give positional ones")
    found = rescale_channels(network, args)
    for pair in found.pairs:
        span = f"{pair.channels} channels, factors {pair.least:.3g} to {pair.largest:.3g}"
        print(f"rescaled {pair.source} and {', '.join(pair.readers)}: {span}", file=sys.stderr)  # noqa: T201
    for refusal in found.refusals:
        print(f"not rescaled: {refusal}", file=sys.stderr)  # noqa: T201
    return found.model  # type: ignore[no-any-return]


def _scored(
    trained: "Trained", task: "Task", spec: Any, times: Any, chips: int, seed: int, path: Path
) -> tuple[aimc.CompiledModel, "Evaluation"]:
    """What was trained, compiled, written and evaluated."""
    from aimc_compiler.training.task import Data

    validation = list(Data(task.validation, task.batch_size, "validation").in_order())
    args, kwargs = pytree.tree_map(partial(_first, dim=task.batch_dim), as_call(validation[0][0]))
    compiled = aimc.compile(trained.model, spec, args, example_kwargs=kwargs, batch_dim=task.batch_dim, seed=seed)
    if compiled.ranges is None and compiled.workload.analog_ops:
        data = Data(task.train, task.batch_size, "training").in_order()
        compiled = compiled.calibrate(
            [inputs for (inputs, _), _ in zip(data, range(_CALIBRATION_BATCHES), strict=False)]
        )
    compiled.save(path)
    return compiled, aimc.evaluate(
        compiled, validation, task.metric, task.chance, times_s=times, n_chips=chips, seed=seed
    )


def _first(leaf: Any, dim: int) -> Any:
    """The first sample of a batch's inputs, copied: what is compiled must not hold the rest. dim: that of samples."""
    return leaf.narrow(dim, 0, 1).clone() if isinstance(leaf, Tensor) and leaf.dim() > dim else leaf


def _line(result: "EpochResult", task: "Task") -> str:
    name = task.metric if isinstance(task.metric, str) else getattr(task.metric, "__name__", "metric")
    chips = " ".join(f"{value:.4f}" for value in result.chip_metrics)
    return (
        f"epoch {result.epoch}/{task.epochs}  loss {result.loss:.4f}  {name} {result.float_metric:.4f}"
        f"{f'  on chip {chips}' if chips else ''}  rate {result.rate:.3g}  {result.seconds:.1f} s"
    )


def _epoch_json(result: "EpochResult") -> dict[str, Any]:
    return {
        "epoch": result.epoch,
        "loss": result.loss,
        "rate": result.rate,
        "float_metric": result.float_metric,
        "chip_metrics": list(result.chip_metrics),
        "seconds": result.seconds,
    }


def _print(compiled: aimc.CompiledModel, result: "Evaluation", trained: "Trained", out: Path) -> None:
    from aimc_compiler.report import counted, evaluation_table

    ranges = "none" if compiled.ranges is None else compiled.ranges.method
    console = terminal()
    console.print(
        f"{counted(trained.steps, 'step')} in {counted(len(trained.epochs), 'epoch')}; "
        f"{counted(result.n_samples, 'sample')} on {counted(result.n_chips, 'programmed chip')} of "
        f"{compiled.chip.name}, seed {result.seed}; input ranges: {ranges}\n"
    )
    console.print(evaluation_table(result))
    console.print(f"\nwrote {out / ARTIFACT}, {out / 'weights.safetensors'}", markup=False, soft_wrap=True)

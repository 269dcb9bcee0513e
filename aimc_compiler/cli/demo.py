"""`aimc demo`: a trained network, from PyTorch to a multi-tile analog chip and a year of drift, in two minutes."""

import json
import time
from typing import Annotated, Any

import torch
import typer
from rich.rule import Rule

import aimc_compiler as aimc
from aimc_compiler.cli.reference import find_data, find_inputs, limit_samples
from aimc_compiler.cli.terminal import terminal
from aimc_compiler.zoo import NETWORKS

NETWORK = "fashion_resnet"


def demo(
    chip: Annotated[str, typer.Option(help="A built-in chip or a spec file.")] = "analog-fabric",
    chips: Annotated[int, typer.Option(min=1, help="Programmed chips to average over.")] = 10,
    images: Annotated[int, typer.Option(min=1, max=2000, help="Test images.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of every random stream: same seed, same bytes.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compile a trained residual CNN, run it over a year of drift."""
    model, example = NETWORKS[NETWORK]()
    spec = aimc.load_chip(chip)
    calibration = find_inputs("zoo:fashion_calibration", 100)
    test = limit_samples(find_data("zoo:fashion_test", 100), images)
    start = time.monotonic()
    compiled = aimc.compile(model, spec, example, calibration, seed=seed)
    compiled_s = time.monotonic() - start
    if not as_json:
        _show_placement(compiled, compiled_s)
    start = time.monotonic()
    result = aimc.evaluate(compiled, test, n_chips=chips, seed=seed)
    evaluated_s = time.monotonic() - start
    float_s = _float_latency_s(model, test[0][0][:1])
    if as_json:
        from aimc_compiler.report import evaluation_json, inspect_json

        found = {**inspect_json(compiled), **evaluation_json(result), "float_latency_s": float_s}
        print(json.dumps(found, indent=2))  # noqa: T201
        return
    _show_accuracy(compiled, result, evaluated_s)
    _show_cost(compiled, float_s)


def _show_placement(compiled: aimc.CompiledModel, seconds: float) -> None:
    from aimc_compiler.report import chip_map, layers_table, summary_table

    console = terminal()
    console.print("A residual CNN trained on Fashion-MNIST, compiled for an analog in-memory chip.\n", style="bold")
    console.print(summary_table(compiled, ("compiled in", f"{seconds:.1f} s")))
    console.print()
    console.print(Rule("which tile holds what", align="left"))
    console.print(layers_table(compiled))
    console.print()
    console.print(chip_map(compiled, console.width))
    console.print()


def _show_accuracy(compiled: aimc.CompiledModel, result: Any, seconds: float) -> None:
    from aimc_compiler.report import counted, evaluation_table

    console = terminal()
    console.print(Rule("how accurate it is", align="left"))
    console.print(
        f"first {result.n_samples:,} of the 10,000 test images, {counted(result.n_chips, 'programmed chip')}, "
        "weights mapped directly (no retraining), drift compensation: "
        f"{compiled.chip.nonidealities.drift_compensation}; took {seconds:.0f} s\n",
    )
    console.print(evaluation_table(result))
    console.print("A*: 100 % is the float network, 0 % is always naming the commonest class.\n", style="dim")


def _show_cost(compiled: aimc.CompiledModel, float_s: float) -> None:
    from aimc_compiler.report import energy_note, energy_table, timing_table

    console = terminal()
    timing = compiled.timing
    console.print(Rule("what one image costs", align="left"))
    console.print(timing_table(timing))
    console.print()
    console.print(energy_table(timing))
    console.print(energy_note(compiled), style="dim")
    console.print(
        f"\nThe float network takes {1e3 * float_s:.2f} ms an image on this computer's processor, alone and on one "
        f"thread: {float_s / timing.latency_s:,.0f} times the chip's latency. Its energy is not measured here.",
    )
    console.print(
        "\nNext: aimc compile zoo:fashion_resnet --chip hermes -o net.aimc --calibrate zoo:fashion_calibration"
    )


def _float_latency_s(model: torch.nn.Module, x: torch.Tensor, runs: int = 30) -> float:
    """Median wall time of one image in floating point on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            times = []
            for _ in range(runs):
                start = time.perf_counter()
                model(x)
                times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return sorted(times)[runs // 2]

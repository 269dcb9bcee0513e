"""Seconds and memory of compiling: to mapping and program, without calibration. A process a network.

    python benchmarks/bench_compile.py                      # resnet50, bert_base, Llama 2 70B at growing depth
    python benchmarks/bench_compile.py llama:80:4096 --timing   # all layers of Llama 2 70B, 4096 tokens, and the timing
    python benchmarks/bench_compile.py llama3:80:8192 --timing  # the same of Llama 3 70B, 8192 tokens
    python benchmarks/bench_compile.py gpt2 --phases            # where the time of compiling goes

Processor seconds (cpu) do not depend on what else runs; wall seconds do.
"""

import argparse
import dataclasses
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.graph import lower, partition
from aimc_compiler.graph.capture import check_values, trace
from aimc_compiler.graph.ir import make_module
from aimc_compiler.mapping import map_workload, verify_mapping
from aimc_compiler.program import lower_mapping, simulate, verify_program
from aimc_compiler.records import without_collection
from aimc_compiler.workload import verify_workload
from aimc_compiler.zoo import NETWORKS
from aimc_compiler.zoo.llama import LLAMA3_70B, LLAMA_70B, llama

SHAPES = {"llama": LLAMA_70B, "llama3": LLAMA3_70B}
CASES = ("resnet50", "bert_base", "llama:2:16", "llama:4:16", "llama:8:16", "llama:16:16")


def build(case: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """A network of the zoo, or on the meta device ``llama:LAYERS:TOKENS`` of Llama 2 70B's widths (``llama3``: 3)."""
    name, *sizes = case.split(":")
    if name not in SHAPES:
        return NETWORKS[name]()
    layers, tokens = map(int, sizes)
    with torch.device("meta"):
        return llama(dataclasses.replace(SHAPES[name], layers=layers)), (torch.zeros(1, tokens, dtype=torch.long),)


def measure(case: str, timing: bool) -> None:
    """Prints a line a step."""
    model, example = build(case)
    wall, cpu = time.perf_counter(), time.process_time()

    def note(step: str, figure: str = "") -> None:
        nonlocal wall, cpu
        took = f"{time.process_time() - cpu:8.2f} s cpu {time.perf_counter() - wall:8.2f} s wall"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{case:16s} {step:8s} {took} {peak:6.2f} GB  {figure}", flush=True)
        wall, cpu = time.perf_counter(), time.process_time()

    compiled = aimc.compile(model, "analog-fabric", example)
    program = compiled.program
    uses = sum(len(task.uses) for task in program.tasks)
    note("compile", f"{compiled.mapping.tiles_used} tiles, {len(program.tasks)} tasks, {uses} uses of resources")
    if timing:
        found = compiled.timing
        note("timing", f"latency {found.latency_s:.6g} s, interval {found.interval_s:.6g} s")
    with tempfile.TemporaryDirectory() as folder:
        path = compiled.save(Path(folder) / "net.aimc")
        note("save", f"{path.stat().st_size / 1e6:.1f} MB")
        aimc.load(path)
        note("load")


def measure_phases(case: str) -> None:
    """Prints a line a phase of compiling, then of all; Python and torch are loaded before."""
    model, example = build(case)
    chip = aimc.load_chip("analog-fabric")
    passed: list[tuple[str, float, float]] = []

    def phase(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work(*arguments)
        passed.append((name, time.perf_counter() - wall, time.process_time() - cpu))
        return result

    traced = phase("torch.export, normal form, shapes", trace, model, example, None, 0)
    module = make_module(traced.root, traced.nodes)
    outputs = phase("checks: network and graph run", check_values, traced, module)
    graph = traced.graph(module, outputs)
    workload = phase("rules, workload", lambda: lower(graph, partition(graph, (), chip)))
    phase("verify workload", verify_workload, workload)
    with without_collection():
        mapping = phase("mapping", map_workload, workload, chip)
        phase("verify mapping", verify_mapping, mapping, workload, chip)
        program = phase("program", lower_mapping, workload, mapping, chip)
        phase("verify program", verify_program, program)
    passed.append(("capture and compile", sum(wall for _, wall, _ in passed), sum(cpu for _, _, cpu in passed)))
    phase("timing", simulate, program)
    for name, wall, cpu in passed:
        print(f"{case:16s} {name:34s} {cpu:8.2f} s cpu {wall:8.2f} s wall", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--timing", action="store_true")
    parser.add_argument("--phases", action="store_true")
    given = parser.parse_args()
    if len(given.cases) == 1:
        measure_phases(given.cases[0]) if given.phases else measure(given.cases[0], given.timing)
        return
    options = ["--timing"] * given.timing + ["--phases"] * given.phases
    for case in given.cases:
        subprocess.run([sys.executable, __file__, case, *options], check=True)


if __name__ == "__main__":
    main()

"""Seconds and memory of compiling: to mapping and program, without calibration. A process a network.

    python benchmarks/bench_compile.py                      # resnet50, bert_base, Llama 2 70B at growing depth
    python benchmarks/bench_compile.py llama:80:4096 --timing   # all layers of Llama 2 70B, 4096 tokens, and the timing
    python benchmarks/bench_compile.py llama3:80:8192 --timing  # the same of Llama 3 70B, 8192 tokens

Processor seconds (cpu) do not depend on what else runs; wall seconds do.
"""

import argparse
import dataclasses
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import aimc_compiler as aimc
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--timing", action="store_true")
    given = parser.parse_args()
    if len(given.cases) == 1:
        measure(given.cases[0], given.timing)
        return
    for case in given.cases:
        subprocess.run([sys.executable, __file__, case, *["--timing"] * given.timing], check=True)


if __name__ == "__main__":
    main()

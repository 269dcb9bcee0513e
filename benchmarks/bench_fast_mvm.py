"""What the full standard model costs in ``fast`` and ``exact`` next to plain torch, in one run, and programming it.

    python benchmarks/bench_fast_mvm.py [--threads N] [--repeats N]

Ratios are medians of the ratios of neighbouring runs, so that a busy machine slows both alike; the spread is that of
their middle half. States of the devices are made before, except where they are what is timed.
"""

import argparse
import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import torch
from bench_exact_mvm import convolution, linear, standard
from torch import Tensor

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.analog.fast import missing_units
from aimc_compiler.analog.fast.lstm import Gates, run_lstm

HOUR_S = 3600.0


def main() -> None:
    """Print one line a case: the time of torch, ratios of fast and exact, and what is aimed at."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--memory", action="store_true", help="measure memory alone")
    options = parser.parse_args()
    if options.memory:
        memory()
        return
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), load {os.getloadavg()[0]:.1f}")
    if missing_units():
        print(f"fast falls back to exact here: {missing_units()}")
    print(f"{'case':<42}{'torch us':>10}{'fast':>8}{'middle half':>15}{'exact':>8}{'aim':>6}")
    for name, plain, chip in (linear(512, 128), linear(1024, 4096), convolution()):
        aim = 3.0 if name.startswith("conv") else 2.5
        show(name, plain, chip("fast"), chip("exact"), aim, options.repeats)
    show("LSTM 128 units, 32 steps, batch 32", *lstm(), 4.0, options.repeats)
    programming(options.repeats)
    subprocess.run([sys.executable, __file__, "--memory"], check=True)


Run = Callable[[], object]


def show(name: str, plain: Run, fast: Run, exact: Run, aim: float, repeats: int) -> None:
    """One line: fast in turn with torch, then exact in turn with torch."""
    times, quick = compare((plain, fast), repeats)
    ratios = [b / a for a, b in zip(times, quick, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    slow = median(b / a for a, b in zip(*compare((plain, exact), max(5, repeats // 2)), strict=True))
    print(
        f"{name:<42}{median(times) * 1e6:>10.0f}{median(ratios):>8.2f}{f'{low:.2f}-{high:.2f}':>15}{slow:>8.2f}{aim:>6}"
    )


def compare(contenders: tuple[Run, ...], repeats: int) -> list[list[float]]:
    """Seconds of each, run in turn."""
    seconds: list[list[float]] = [[] for _ in contenders]
    with torch.no_grad():
        for run in contenders:
            run()
            run()
        for _ in range(repeats):
            for run, times in zip(contenders, seconds, strict=True):
                start = time.perf_counter()
                run()
                times.append(time.perf_counter() - start)
    return seconds


def lstm() -> tuple[Run, Run, Run]:
    """torch's LSTM, the fused kernel, and the same gates from ``exact`` matrices, a step at a time."""
    torch.manual_seed(0)
    network = torch.nn.LSTM(128, 128, batch_first=True)
    x = torch.rand(32, 32, 128) * 2 - 1
    zero = torch.zeros(32, 128)
    weights = (network.weight_ih_l0.detach(), network.weight_hh_l0.detach())
    bias = (network.bias_ih_l0 + network.bias_hh_l0).detach()
    tiles = [standard(w[None], Contraction(kind="linear"), precision="fast") for w in weights]
    ones = torch.ones(1, 1)
    gates = [gates_of(held, ones, None if k else bias) for k, held in enumerate(tiles)]
    slow = [standard(w[None], Contraction(kind="linear")) for w in weights]

    def exact() -> Tensor:
        given = slow[0].forward(x, ones, HOUR_S) + bias
        h, c = zero, zero
        for step in range(x.shape[1]):
            i, f, g, o = (given[:, step] + slow[1].forward(h, ones, HOUR_S, first_call=step)).chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h

    return lambda: network(x), lambda: run_lstm(x, zero, zero, *gates), exact


def gates_of(tiles: MatrixOnTiles, ranges: Tensor, bias: Tensor | None) -> Gates:
    """A matrix at one hour, ready for the kernel."""
    tiles.rescale_outputs(None, bias)
    parts = tiles.fast_parts(ranges, HOUR_S)
    assert parts is not None, tiles.choice
    return Gates(parts=parts, settings=tiles.settings)


def programming(repeats: int) -> None:
    """10 million weights: programming, ageing, compensation and digits, against one draw of 63 million normals."""
    layers = [torch.randn(1, 1024, 1024) / 32 for _ in range(10)]
    tiles = [standard(w, Contraction(kind="linear"), precision="fast") for w in layers]
    ranges, x = torch.ones(1, 2), torch.rand(8, 1024)
    count = 0

    def chip() -> None:
        nonlocal count
        count += 1
        for held in tiles:
            held.forward(x, ranges, HOUR_S + count)

    weights = sum(w.numel() for w in layers)
    draw, made = compare((lambda: torch.randn(6 * weights), chip), max(3, repeats // 3))
    ratio = median(b / a for a, b in zip(draw, made, strict=True))
    print(
        f"program, age, compensate {weights / 1e6:.1f} M weights: {1e3 * median(made):.0f} ms, "
        f"{ratio:.2f} of one torch draw of {6 * weights / 1e6:.0f} M normals (aim 1.2)"
    )


def memory() -> None:
    """What 10 million weights hold at a steady state, besides the float weights: to run in a process of its own."""
    torch.set_num_threads(2)
    ranges, x = torch.ones(1, 2), torch.rand(8, 1024)
    standard(torch.randn(1, 1024, 1024), Contraction(kind="linear"), precision="fast").forward(x, ranges, HOUR_S)
    layers = [torch.randn(1, 1024, 1024) / 32 for _ in range(10)]
    before = resident_bytes()
    tiles = [standard(w, Contraction(kind="linear"), precision="fast") for w in layers]
    for time_s in (1.0, 2.0, 3.0):
        for held in tiles:
            held.forward(x, ranges, time_s)
    share = (resident_bytes() - before) / (4 * sum(w.numel() for w in layers))
    print(f"memory of {len(layers)} layers of 1024 x 1024: {1 + share:.2f} times the float weights (aim 4)")


def resident_bytes() -> int:
    """Resident memory now, of this process, without what the allocator holds free."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()

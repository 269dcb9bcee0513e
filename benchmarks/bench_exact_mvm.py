"""What the standard model in ``exact`` precision costs next to the same operation of plain torch, in one run.

    python benchmarks/bench_exact_mvm.py

Medians of interleaved runs, so that a busy machine slows both alike. The state of the devices is made before.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.analog.fast import Precision
from aimc_compiler.chip import load_chip
from aimc_compiler.mapping.cut import cut_columns, cut_rows
from aimc_compiler.mapping.ir import Piece

REPEATS = 9


def main() -> None:
    """Print one line a case: microseconds of torch and of the chip, and their ratio."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    print(f"{'case':<42}{'torch us':>10}{'exact us':>11}{'ratio':>8}")
    for name, plain, chip in (linear(512, 128), linear(1024, 4096), convolution()):
        float_s, exact_s = compare(plain, chip("exact"))
        print(f"{name:<42}{float_s * 1e6:>10.0f}{exact_s * 1e6:>11.0f}{exact_s / float_s:>8.2f}")


Case = tuple[str, Callable[[], Tensor], Callable[[Precision], Callable[[], Tensor]]]


def linear(features: int, batch: int) -> Case:
    """A square linear layer on uniform inputs."""
    torch.manual_seed(0)
    weight, x = torch.randn(features, features) / features**0.5, torch.rand(batch, features) * 2 - 1

    def chip(precision: Precision) -> Callable[[], Tensor]:
        on_tiles = standard(weight[None], Contraction(kind="linear"), precision)
        ranges = torch.ones(1, len(on_tiles.blocks))
        return lambda: on_tiles.forward(x, ranges, 3600.0)

    return f"linear {features} x {features}, batch {batch}", lambda: F.linear(x, weight), chip


def convolution() -> Case:
    """3 x 3, 64 to 64 channels on 32 x 32, against torch in the faster of its two memory layouts."""
    torch.manual_seed(0)
    weight, x = torch.randn(64, 64, 3, 3) / 24, torch.rand(32, 64, 32, 32)
    ones = (1, 1)
    contraction = Contraction(kind="conv2d", kernel=(3, 3), stride=ones, padding=ones, dilation=ones)

    def chip(precision: Precision) -> Callable[[], Tensor]:
        on_tiles = standard(weight.reshape(1, 64, -1), contraction, precision)
        ranges = torch.ones(1, len(on_tiles.blocks))
        return lambda: on_tiles.forward(x, ranges, 3600.0)

    last = x.contiguous(memory_format=torch.channels_last)
    last_weight = weight.contiguous(memory_format=torch.channels_last)
    plain, _ = sorted(
        (lambda: F.conv2d(x, weight, padding=1), lambda: F.conv2d(last, last_weight, padding=1)),
        key=lambda run: compare(run, run)[0],
    )
    return "conv 3 x 3, 64 to 64, 32 x 32, batch 32", plain, chip


def standard(weight: Tensor, contraction: Contraction, precision: Precision = "exact") -> MatrixOnTiles:
    """The standard model on tiles of 512 x 512."""
    chip = load_chip("analog-fabric")
    assert chip.tile is not None
    tile, nonidealities = chip.tile, chip.nonidealities
    rows = cut_rows(weight.shape[2], contraction.places, tile.weight_rows)
    columns = cut_columns(weight.shape[1], tile.weight_columns)
    return MatrixOnTiles(weight, contraction, grid(rows, columns), tile, nonidealities, precision=precision)


def grid(rows: tuple[int, ...], columns: tuple[int, ...]) -> tuple[Piece, ...]:
    """One piece for each pair of a row cut and a column cut."""
    return tuple(
        Piece(
            matrix="layer",
            group=0,
            row_block=i,
            column_block=j,
            first_row=sum(rows[:i]),
            rows=rows[i],
            first_column=sum(columns[:j]),
            columns=columns[j],
            tile=i * len(columns) + j,
        )
        for i in range(len(rows))
        for j in range(len(columns))
    )


def compare(first: Callable[[], Tensor], second: Callable[[], Tensor]) -> tuple[float, float]:
    """Median seconds of both, run in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        first(), second()
        for _ in range(REPEATS):
            for run, seconds in zip((first, second), times, strict=True):
                start = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - start)
    return median(times[0]), median(times[1])


if __name__ == "__main__":
    main()

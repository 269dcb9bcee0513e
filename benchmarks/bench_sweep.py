"""A sweep of the demo network by one worker and by two: seconds of the whole command's work, and their ratio.

    python benchmarks/bench_sweep.py [REPEATS]

One worker is this process, two are processes of their own, each on one thread. Compiling, calibrating and the start of
the workers are timed with the rest; the tables are compared. The runs alternate; the ratio is that of neighbours.
"""

import importlib
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from aimc_compiler.cli.sweep import Named
from aimc_compiler.study.sweep import read_sweep, run_sweep

DEFINITION = """
schema_version: 1
network: zoo:fashion_resnet
calibration: zoo:fashion_calibration
data: zoo:fashion_test
limit: 1000
grid:
  tile.adc.bits: [6, 7, 8]
times: [1 s, 1 h, 1 day, 1 year]
chips: 16
"""


def main() -> None:
    """Print seconds and the ratio of one worker to two."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    seconds: dict[int, list[float]] = {1: [], 2: []}
    found: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "sweep.yaml"
        path.write_text(DEFINITION.replace("limit: 1000", "limit: 10"))
        run_sweep(read_sweep(path), folder / "first", Named())  # compiles the kernels, where they are not yet
        path.write_text(DEFINITION)
        sweep = read_sweep(path)
        for repeat in range(repeats):
            for workers in seconds:
                out = folder / f"{repeat}-{workers}"
                start = time.perf_counter()
                run_sweep(sweep, out, Named(), workers=workers)
                seconds[workers].append(time.perf_counter() - start)
                found.add((out / "results.json").read_text())
    print(f"torch {importlib.import_module('torch').__version__}, {len(list(sweep.cells()))} cells")
    for workers, each in seconds.items():
        print(f"{workers} worker(s)  {median(each):7.1f} s   ({', '.join(f'{one:.1f}' for one in each)})")
    ratio = median(one / two for one, two in zip(*seconds.values(), strict=True))
    print(f"ratio {ratio:.2f} (aim 1.8), {len(found)} different result(s)")


if __name__ == "__main__":
    main()

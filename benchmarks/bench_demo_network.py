"""The demo network on the virtual chip next to the float network, in one run: images a second, and their ratio.

    python benchmarks/bench_demo_network.py

Medians of interleaved runs, so that a busy machine slows both alike. Programming is timed on its own.
"""

import time
from statistics import median

import torch

import aimc_compiler as aimc
from aimc_compiler.zoo.fashion import fashion_images, fashion_resnet

REPEATS = 7
IMAGES = 200
HOUR_S = 3600.0


def main() -> None:
    """Print seconds of the float network and of the chip, their ratio, and what compiling and programming take."""
    model = fashion_resnet()
    calibration, _ = fashion_images("calibration")
    images = fashion_images("test")[0][:IMAGES]
    start = time.perf_counter()
    compiled = aimc.compile(model, "analog-fabric", (images[:1],), calibration=calibration.split(128))
    compiled_s = time.perf_counter() - start
    start = time.perf_counter()
    timing = compiled.timing
    simulated_s = time.perf_counter() - start
    exact, fast = (compiled.deploy(precision=precision) for precision in ("exact", "fast"))
    seconds: list[list[float]] = [[] for _ in range(4)]
    with torch.inference_mode():
        for repeat in range(-1, REPEATS):
            runs = (
                lambda: model(images),
                lambda: fast(images, time_s=HOUR_S),
                lambda: exact(images, time_s=HOUR_S),
                lambda seed=repeat + 1: compiled.deploy(seed=seed)(images[:1], time_s=HOUR_S),
            )
            for run, times in zip(runs, seconds, strict=True):
                start = time.perf_counter()
                run()
                times.append(time.perf_counter() - start)
    float_s, fast_s, exact_s, state_s = (times[1:] for times in seconds)
    not_fast = [name for name, choice in fast.precision.items() if choice.precision != "fast"]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {IMAGES} images")
    print(f"float network      {1e3 * median(float_s):8.1f} ms")
    print(f"fast, 1 h          {1e3 * median(fast_s):8.1f} ms   ratio {ratio(fast_s, float_s):.2f} (aim 3.5)")
    print(f"exact, 1 h         {1e3 * median(exact_s):8.1f} ms   ratio {ratio(exact_s, float_s):.2f} (aim 13)")
    if not_fast:
        print(f"not in fast: {', '.join(not_fast)}")
    print(f"program and age    {1e3 * median(state_s):8.1f} ms   (a new chip, one image)")
    print(f"compile            {1e3 * compiled_s:8.1f} ms   (capture to calibrated program)")
    print(f"schedule           {1e3 * simulated_s:8.1f} ms   ({timing.counts.mvms} MVMs, first call)")


def ratio(slow: list[float], plain: list[float]) -> float:
    """Median of the ratios of neighbouring runs."""
    return median(a / b for a, b in zip(slow, plain, strict=True))


if __name__ == "__main__":
    main()

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
    device = compiled.deploy()
    device(images[:1], time_s=HOUR_S)
    float_s, chip_s, state_s = [], [], []
    with torch.inference_mode():
        model(images)
        for repeat in range(REPEATS):
            start = time.perf_counter()
            model(images)
            middle = time.perf_counter()
            device(images, time_s=HOUR_S)
            float_s.append(middle - start)
            chip_s.append(time.perf_counter() - middle)
            start = time.perf_counter()
            compiled.deploy(seed=repeat)(images[:1], time_s=HOUR_S)
            state_s.append(time.perf_counter() - start)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {IMAGES} images")
    print(f"float network      {1e3 * median(float_s):8.1f} ms")
    print(f"exact, 1 h         {1e3 * median(chip_s):8.1f} ms   ratio {median(chip_s) / median(float_s):.2f}")
    print(f"program and age    {1e3 * median(state_s):8.1f} ms   (a new chip, one image)")
    print(f"compile            {1e3 * compiled_s:8.1f} ms   (capture to calibrated program)")
    print(f"schedule           {1e3 * simulated_s:8.1f} ms   ({timing.counts.mvms} MVMs, first call)")


if __name__ == "__main__":
    main()

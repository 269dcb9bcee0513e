"""What a step of hardware-aware training costs next to the same step in plain torch, in one run, and its memory.

    python benchmarks/bench_training.py

Medians of interleaved steps, so that a busy machine slows both alike. Steps are those after the first mini-batches, in
which ranges follow the inputs. Memory is what a step of a larger batch adds at its peak to a process that has made
steps of a small one.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aimc_compiler.training import prepare_hwa
from aimc_compiler.zoo.fashion import FashionResNet

STEPS = {"mlp": 60, "cnn": 15, "lstm": 15, "characters": 5}


def mlp() -> tuple[nn.Module, Tensor]:
    """Three linear layers of 512, batch 128."""
    layers = [layer for _ in range(3) for layer in (nn.Linear(512, 512), nn.ReLU())]
    return nn.Sequential(*layers[:-1]), torch.randn(128, 512)


def cnn() -> tuple[nn.Module, Tensor]:
    """The residual CNN of the demo, batch 128."""
    return FashionResNet(), torch.rand(128, 1, 28, 28)


class Sequence(nn.Module):
    """An LSTM of 96 units on 60 frames of 32 features, batch 64."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(32, 96, batch_first=True), nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.lstm(x)[0][:, -1])
        return y


def lstm() -> tuple[nn.Module, Tensor]:
    """See ``Sequence``."""
    return Sequence(), torch.randn(64, 60, 32)


class Characters(nn.Module):
    """A character model: two LSTM layers of 256 units on 128 characters of 64, batch 64."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(64, 64), nn.LSTM(64, 256, 2, batch_first=True)
        self.head = nn.Linear(256, 64)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.lstm(self.embedding(x))[0]).mean(1)
        return y


def characters() -> tuple[nn.Module, Tensor]:
    """See ``Characters``."""
    return Characters(), torch.randint(0, 64, (64, 128))


CASES = {"mlp": mlp, "cnn": cnn, "lstm": lstm, "characters": characters}


def stepper(network: nn.Module, x: Tensor) -> Callable[[], None]:
    """A step of stochastic gradient descent on one batch."""
    network.train()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    targets = torch.arange(len(x)) % 10

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(network(x), targets).backward()
        optimiser.step()

    return step


def prepared(network: nn.Module) -> nn.Module:
    hwa: nn.Module = prepare_hwa(network, "analog-fabric", {"range_batches": 1})
    return hwa


def timed(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def peak_mb(case: str, kind: str) -> float:
    """See ``alone``, in MB."""
    command = [sys.executable, __file__, case, kind]
    # Else the allocator keeps what was free before, and what it keeps differs from run to run.
    settings = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=settings).stdout)


def alone(case: str, kind: str) -> None:
    """Print what steps of a batch 8 times as large add to the memory of this process; kind: float or hwa."""
    torch.manual_seed(0)
    network, x = CASES[case]()
    network = prepared(network) if kind == "hwa" else network
    small, large = stepper(network, x[:2]), stepper(network, x.repeat(8, *(1,) * (x.dim() - 1)))
    for _ in range(3):
        small()
    before = memory_kb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    for _ in range(3):
        large()
    print((memory_kb("VmHWM") - before) / 1000)


def memory_kb(field: str) -> int:
    """A figure of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1])


def main() -> None:
    """Print one line a case."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    print(f"{'case':<12}{'torch ms':>10}{'hwa ms':>9}{'ratio':>7}{'torch MB':>10}{'hwa MB':>8}{'ratio':>7}")
    for case, make in CASES.items():
        torch.manual_seed(0)
        network, x = make()
        steps = stepper(network, x), stepper(prepared(network), x)
        for step in steps:
            for _ in range(4):
                step()
        pairs = [(timed(steps[0]), timed(steps[1])) for _ in range(STEPS[case])]
        plain, hwa = (median(times) for times in zip(*pairs, strict=True))
        base, peak = (peak_mb(case, kind) for kind in ("float", "hwa"))
        memory = f"{base:>10.0f}{peak:>8.0f}{peak / base:>7.2f}"
        print(f"{case:<12}{plain * 1e3:>10.2f}{hwa * 1e3:>9.2f}{hwa / plain:>7.2f}{memory}")


if __name__ == "__main__":
    alone(*sys.argv[1:]) if len(sys.argv) > 1 else main()

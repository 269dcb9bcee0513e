"""A small network with its data and a metric that logs each call, and definitions of sweeps over it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from aimc_compiler.chip.yaml_tree import write_tree

MODULE = """
import os, time
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3)).eval(), torch.zeros(1, 12)

def batches():
    torch.manual_seed(1)
    x = torch.randn(16, 12)
    return [(x, network()[0](x).argmax(1))]

def other():
    torch.seed()
    return torch.nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3)).eval(), torch.zeros(1, 12)

def drawn():
    torch.seed()
    x = torch.randn(16, 12)
    return [(x, torch.zeros(16))]

def logged(outputs, targets):
    value = float(outputs.double().mean())
    time.sleep(0.03)
    with open(LOG, "a") as log:
        log.write(f"{os.getpid()} {value!r}\\n")
    return value

def fatal(outputs, targets):
    value = float(outputs.double().mean())
    with open(LOG, "a") as log:
        log.write(f"{os.getpid()} {value!r}\\n")
    if DRIVER.read_text() != str(os.getpid()):
        os.abort()
    return value

def fails(outputs, targets):
    if DRIVER.read_text() == "armed":
        raise ValueError("no such luck")
    return float(outputs.double().mean())
"""


def write_module(folder: Path) -> Path:
    """net.py in a folder; its metrics log to ``log`` and look into ``driver`` beside it."""
    path, log, driver = folder / "net.py", folder / "log", folder / "driver"
    head = f"from pathlib import Path\nLOG = Path({str(log)!r})\nDRIVER = Path({str(driver)!r})\n"
    path.write_text(head + MODULE)
    log.touch()
    return path


def write_definition(folder: Path, name: str = "sweep.yaml", **changes: Any) -> Path:
    """A sweep of eight cells over ``net.py`` of the folder, changed by ``changes``; None leaves a key out."""
    net = folder / "net.py"
    data: dict[str, Any] = {
        "schema_version": 1,
        "network": f"{net}:network",
        "chip": "analog-fabric",
        "calibration": f"{net}:batches",
        "data": f"{net}:batches",
        "metric": f"{net}:logged",
        "grid": {"tile.adc.bits": [5, 6, 7, 8]},
        "times": ["1 s", "1 day"],
        "chips": 2,
    } | changes
    path = folder / name
    path.write_text(write_tree({key: value for key, value in data.items() if value is not None}))
    return path


def start(definition: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    """`aimc sweep` in a process of its own."""
    code = "from aimc_compiler.cli import main; main()"
    command = [sys.executable, "-c", code, "sweep", str(definition), "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and those below, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

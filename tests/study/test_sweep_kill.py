"""kill -9 of drivers and workers at random: no finished cell is lost or computed again, the bytes are the same."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from sweep_folders import files_of, start, write_definition, write_module

from aimc_compiler.cli.sweep import Named
from aimc_compiler.study.sweep import read_sweep, run_sweep


@pytest.mark.parametrize(("kills", "chips"), [(5, 8), pytest.param(50, 60, marks=pytest.mark.slow)])
def test_kills_lose_and_repeat_nothing(tmp_path: Path, kills: int, chips: int) -> None:
    write_module(tmp_path)
    definition = write_definition(tmp_path, chips=chips)
    run_sweep(read_sweep(definition), tmp_path / "whole", Named())
    values = logged(tmp_path)
    assert len(set(values)) == len(values) == 1 + 4 * chips * 2  # so each call of the metric tells its cell
    (tmp_path / "log").write_text("")
    drawn, killed = random.Random(kills), {"driver": 0, "worker": 0}
    finished, seen = set[str](), 0
    while True:
        driver = start(definition, tmp_path / "out", "--workers", "2", "--retries", str(kills))
        workers = list[int]()
        try:
            while sum(killed.values()) < kills and wait_until_some_moment(tmp_path, drawn, driver):
                workers = children(driver.pid)
                kind = "worker" if killed["worker"] <= killed["driver"] else "driver"
                if kind == "worker" and not workers:
                    continue
                victim = driver.pid if kind == "driver" else drawn.choice(workers)
                killed[kind] += 1
                with contextlib.suppress(ProcessLookupError):  # a worker that another has replaced
                    os.kill(victim, signal.SIGKILL)
                if victim == driver.pid:
                    break
            output, _ = driver.communicate(timeout=600)
        finally:
            driver.kill()
        require_gone(workers)
        calls = logged(tmp_path)
        assert not finished & set(calls[seen:]), "a finished cell was computed again"
        now = finished_values(tmp_path / "out")
        assert finished <= now, "a finished cell was lost"
        finished, seen = now, len(calls)
        if driver.returncode != -signal.SIGKILL:
            break
    assert driver.returncode == 0, output
    assert sum(killed.values()) == kills, "the sweep was too short for the kills"
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def logged(folder: Path) -> list[str]:
    """What the metric has given, call after call; a line that a kill cut short tells no cell."""
    lines = (folder / "log").read_text().split("\n")[:-1]
    return [line.split()[1] for line in lines]


def wait_until_some_moment(folder: Path, drawn: random.Random, driver: "subprocess.Popen[str]") -> bool:
    """Some while, or until some calls of the metric more are logged; False: the driver has ended before."""
    calls, more = len(logged(folder)), drawn.randint(1, 12)
    deadline = time.monotonic() + (drawn.uniform(0.5, 5.0) if drawn.random() < 0.3 else 60.0)
    while driver.poll() is None and time.monotonic() < deadline and len(logged(folder)) < calls + more:
        time.sleep(0.005)
    time.sleep(drawn.uniform(0.0, 0.05))
    return driver.poll() is None


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def require_gone(pids: list[int]) -> None:
    """Workers end with their driver."""
    deadline = time.monotonic() + 20
    while (running := [pid for pid in pids if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not running


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def finished_values(out: Path) -> set[str]:
    """Of all cells whose files stand there."""
    cells = [json.loads(path.read_text()) for path in (out / "cells").glob("s*.json")]
    return {repr(value) for cell in cells for value in cell["result"]["values"]}

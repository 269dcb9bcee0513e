"""Sweeps: every cell as `evaluate` has it, the same bytes by any runner, nothing finished computed again."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from sweep_folders import files_of, start, write_definition, write_module

import aimc_compiler as aimc
from aimc_compiler.cli.sweep import Named
from aimc_compiler.errors import MissingDependencyError, SweepError
from aimc_compiler.study.sweep import SweepResult, read_sweep, run_sweep, sweep_state


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_module(tmp_path)
    return tmp_path


def run(definition: Path, out: Path, told: list[str] | None = None, **options: Any) -> SweepResult:
    tell = (lambda text: None) if told is None else told.append
    return run_sweep(read_sweep(definition), out, Named(), tell=tell, **options)


def calls(folder: Path) -> list[str]:
    """Values that the metric has given, call after call."""
    return [line.split()[1] for line in (folder / "log").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["exact", "auto"])
def test_every_setting_is_what_compiling_and_evaluating_it_gives(folder: Path, precision: str) -> None:
    """With figures that only calibration reads, that only the values read, that move matrices, and without any."""
    grid = {"tile.adc.out_bound": [12, "calibrated"], "recalibration": ["always", "never"]}
    grid |= {"nonidealities.mvm.passes": ["one", "digital"]}
    noises = {"tile.rows": [512, 8], "nonidealities.mvm.sigma_out": [0.04, 0.1]}
    options = {"ranges": "mse", "metric": "accuracy", "precision": precision, "seed": 3}
    result = run(write_definition(folder, grid=grid, zip=noises, **options), folder / "out")
    assert len(result.rows) == 32
    named, net = Named(), folder / "net.py"
    for first, second in zip(result.rows[::2], result.rows[1::2], strict=True):
        figures = {path: value for path, value in first.setting.items() if path != "recalibration"}
        chip = aimc.load_chip("analog-fabric", [f"{path}={value}" for path, value in figures.items()])
        model, example = named.network(f"{net}:network")
        data = named.calibration(f"{net}:batches", 100)
        compiled = aimc.compile(model, chip, example, data, range_method="mse", seed=3)
        expected = aimc.evaluate(
            compiled,
            named.data(f"{net}:batches", 100, None, None),
            times_s=[1.0, 86400.0],
            n_chips=2,
            seed=3,
            recalibration=first.setting["recalibration"],
            precision=precision,  # type: ignore[arg-type]
        )
        assert [row.values for row in (first, second)] == [time.values for time in expected.times]
        assert [row.a_star for row in (first, second)] == [time.a_star for time in expected.times]
        assert (first.tiles, first.latency_s) == (compiled.utilization.tiles_used, compiled.timing.latency_s)
    assert len({row.values for row in result.rows}) > 6
    assert len(list((folder / "out" / "programs").glob("*.aimc"))) == 4 + 4


def test_the_same_bytes_by_any_number_of_workers(folder: Path) -> None:
    definition = write_definition(folder)
    results = [run(definition, folder / f"out{workers}", workers=workers) for workers in (1, 2, 3)]
    first, *others = (files_of(folder / f"out{workers}") for workers in (1, 2, 3))
    assert first == others[0] == others[1]
    assert results[0] == results[1] == results[2]
    assert len([name for name in first if name.startswith("cells/")]) == 8
    pids = {line.split()[0] for line in (folder / "log").read_text().splitlines()}
    assert len(pids) == 1 + 2 + 3
    assert len(calls(folder)) == 3 * (1 + 8 * 2)


def test_the_same_bytes_on_dask(folder: Path) -> None:
    definition = write_definition(folder)
    run(definition, folder / "here")
    process = start(definition, folder / "dask", "--dask", "local", "--workers", "2")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert files_of(folder / "here") == files_of(folder / "dask")


def test_dask_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'aimc_compiler\[dask\]'"):
        run(write_definition(folder), folder / "out", dask="local")


def test_a_second_run_computes_only_what_is_missing(folder: Path) -> None:
    definition = write_definition(folder)
    run(definition, folder / "out")
    whole, before = files_of(folder / "out"), calls(folder)
    for name in ("s0001-c0001", "s0003-c0000"):
        (folder / "out" / "cells" / f"{name}.json").unlink()
    state = sweep_state(read_sweep(definition), folder / "out")
    assert (len(state.cells), len(state.done), state.damaged) == (8, 6, {})
    run(definition, folder / "out")
    assert files_of(folder / "out") == whole
    missing = [place for cell in (3, 6) for place in (1 + 2 * cell, 2 + 2 * cell)]
    assert calls(folder)[len(before) :] == [before[place] for place in missing]


@pytest.mark.parametrize("how", ["truncated", "altered", "empty", "of another cell"])
def test_a_damaged_cell_is_reported_and_computed_again(folder: Path, how: str) -> None:
    definition, told = write_definition(folder, grid=None, chips=2), list[str]()
    run(definition, folder / "out")
    whole = files_of(folder / "out")
    path = folder / "out" / "cells" / "s0000-c0001.json"
    text = path.read_text()
    other = path.with_name("s0000-c0000.json").read_text()
    path.write_text({"truncated": text[:-40], "altered": text.replace("2", "3"), "empty": ""}.get(how, other))
    assert list(sweep_state(read_sweep(definition), folder / "out").damaged) == ["s0000-c0001"]
    run(definition, folder / "out", told)
    assert files_of(folder / "out") == whole
    assert [text for text in told if str(path) in text and text.endswith("it is computed again")]


@pytest.mark.parametrize("name", ["data.pt", "reference.json", "programs"])
def test_damaged_files_that_cells_share_are_made_again(folder: Path, name: str) -> None:
    definition, told = write_definition(folder, grid=None), list[str]()
    run(definition, folder / "out")
    whole = files_of(folder / "out")
    path = folder / "out" / name
    path = next(path.glob("*.aimc")) if path.is_dir() else path
    path.write_bytes(path.read_bytes()[:-20])
    (folder / "out" / "cells" / "s0000-c0000.json").unlink()
    run(definition, folder / "out", told)
    assert files_of(folder / "out") == whole
    assert any(str(path) in text for text in told), told


def test_a_changed_definition_is_refused_with_what_differs(folder: Path) -> None:
    run(write_definition(folder, grid=None, chips=1), folder / "out")
    changed = write_definition(folder, "other.yaml", grid={"tile.adc.bits": [7]}, chips=2, set={"tile.count": 16})
    with pytest.raises(SweepError) as error:
        run(changed, folder / "out")
    text = str(error.value)
    assert "holds another sweep" in text
    for part in ("n_chips was 1, is 2", "chip.tile.count was auto, is 16", "tile.adc.bits was not given, is 7"):
        assert part in text, text
    assert text.endswith("Restore that, or give another folder (--out)")


def test_a_changed_source_file_is_refused(folder: Path) -> None:
    definition = write_definition(folder, grid=None, chips=1)
    run(definition, folder / "out")
    with (folder / "net.py").open("a") as file:
        file.write("\nmore = 1\n")
    with pytest.raises(SweepError, match=r"files\..*net\.py:network was"):
        run(definition, folder / "out")


def test_weights_that_differ_each_time_are_refused_when_they_are_asked_for_again(folder: Path) -> None:
    definition = write_definition(folder, network=f"{folder / 'net.py'}:other", grid=None, chips=1)
    run(definition, folder / "out")
    for path in (folder / "out" / "programs").iterdir():
        path.unlink()
    with pytest.raises(
        SweepError, match=r"has other weights, or .* other data, than when this sweep began: .*seed them"
    ):
        run(definition, folder / "out")


def test_cells_of_other_weights_are_not_mixed_in(folder: Path) -> None:
    """Where the digests of the first weights are lost, the cells that rest on them are computed again."""
    definition = write_definition(folder, network=f"{folder / 'net.py'}:other", grid=None)
    told = list[str]()
    first = run(definition, folder / "out").rows[0].values
    for path in (folder / "out" / "reference.json", *(folder / "out" / "programs").iterdir()):
        path.unlink()
    again = run(definition, folder / "out", told)
    assert sum("rests on other weights or data than there are now: it is computed again" in text for text in told) == 2
    assert not set(first) & set(again.rows[0].values)


def test_data_that_differs_each_time_is_kept_as_it_was(folder: Path) -> None:
    definition = write_definition(folder, data=f"{folder / 'net.py'}:drawn", grid=None)
    run(definition, folder / "out")
    whole = files_of(folder / "out")
    (folder / "out" / "cells" / "s0000-c0001.json").unlink()
    run(definition, folder / "out")
    assert files_of(folder / "out") == whole


def test_two_at_once_on_one_folder(folder: Path) -> None:
    import fcntl

    definition, told = write_definition(folder, grid=None, chips=1), list[str]()
    run(definition, folder / "out")
    lock = folder / "out" / "lock"
    assert lock.read_text() == ""
    with lock.open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(f"process 4711 on {os.uname().nodename}, since 2026-01-01 00:00:00 UTC\n")
        held.flush()
        with pytest.raises(SweepError, match=r"is in use: process 4711 on .* runs this sweep\. Wait for it"):
            run(definition, folder / "out")
    run(definition, folder / "out", told)
    assert told == [
        f"process 4711 on {os.uname().nodename}, since 2026-01-01 00:00:00 UTC ended without finishing; "
        "going on from its cells"
    ]
    lock.write_text("process 4711 on elsewhere, since 2026-01-01 00:00:00 UTC\n")
    with pytest.raises(SweepError, match=r"taken by process 4711 on elsewhere.*another machine.*remove .*lock"):
        run(definition, folder / "out")


def test_a_worker_that_always_dies(folder: Path) -> None:
    """Its cell is tried as often as was asked."""
    (folder / "driver").write_text(str(os.getpid()))
    definition, told = write_definition(folder, metric=f"{folder / 'net.py'}:fatal", grid=None, chips=1), list[str]()
    with pytest.raises(SweepError, match=r"1 of 1 cells failed.*its worker died 2 times, last by: signal 6, Aborted"):
        run(definition, folder / "out", told, workers=2, retries=1)
    assert sum("the cell is tried again" in text for text in told) == 1
    assert len(calls(folder)) == 1 + 2
    assert not list((folder / "out" / "cells").iterdir())


def test_workers_that_cannot_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aimc_compiler.study.sweep import processes

    monkeypatch.setattr(processes, "_START", "import sys; sys.exit(3)")
    with pytest.raises(SweepError, match="workers end before they take a cell: exit code 3"):
        run(write_definition(folder), folder / "out", workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cell_that_fails_leaves_the_others(folder: Path, workers: int) -> None:
    driver = folder / "driver"
    driver.write_text("")
    definition = write_definition(folder, metric=f"{folder / 'net.py'}:fails", grid=None)
    run(definition, folder / "out")
    whole = files_of(folder / "out")
    (folder / "out" / "cells" / "s0000-c0001.json").unlink()
    driver.write_text("armed")
    with pytest.raises(
        SweepError, match=r"1 of 2 cells failed, the others are kept; first s0000-c0001 \(chip 1, .*luck"
    ):
        run(definition, folder / "out", workers=workers)
    driver.write_text("")
    run(definition, folder / "out")
    assert files_of(folder / "out") == whole


def test_a_compiled_network(folder: Path) -> None:
    named, net = Named(), folder / "net.py"
    model, example = named.network(f"{net}:network")
    compiled = aimc.compile(model, "analog-fabric", example, named.calibration(f"{net}:batches", 100))
    compiled.save(folder / "net.aimc")
    changes: dict[str, Any] = {"network": str(folder / "net.aimc"), "chip": None, "calibration": None}
    result = run(write_definition(folder, **changes), folder / "out")
    expected = run(write_definition(folder), folder / "same")
    assert [row.values for row in result.rows] == [row.values for row in expected.rows]
    assert len(list((folder / "out" / "programs").glob("*.aimc"))) == 1
    with pytest.raises(SweepError, match=r"tile\.rows=256: .*compile again"):
        run(write_definition(folder, grid={"tile.rows": [512, 256]}, **changes), folder / "moved")


def test_a_setting_that_does_not_fit(folder: Path) -> None:
    definition = write_definition(folder, grid={"tile.count": [64, 1]})
    with pytest.raises(SweepError, match=r"^tile\.count=1: "):
        run(definition, folder / "out")


def test_results_as_files(folder: Path) -> None:
    result = run(write_definition(folder, grid={"tile.adc.bits": [6, "off"]}, metric="accuracy"), folder / "out")
    lines = (folder / "out" / "results.csv").read_text().splitlines()
    assert lines[0].startswith("tile.adc.bits,time_s,mean,std,a_star,tiles,latency_s,")
    assert [line.split(",")[0] for line in lines[1:]] == ["6", "6", "off", "off"]
    assert [float(line.split(",")[2]) for line in lines[1:]] == [row.mean for row in result.rows]
    held = json.loads((folder / "out" / "results.json").read_text())
    assert [row["values"] for row in held["rows"]] == [list(row.values) for row in result.rows]
    assert held["rows"][3]["setting"] == {"tile.adc.bits": "off"}

"""The commands, as a user runs them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aimc_compiler as aimc

MODEL = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3)).eval(), torch.zeros(1, 12)

def batches():
    torch.manual_seed(1)
    x = torch.randn(64, 12)
    return [(x, network()[0](x).argmax(1))]

def fails():
    return absent

def needs(size):
    return network()

def late():
    yield batches()[0]
    raise RuntimeError("no more")

def alone():
    return [batches()[0][0]]

def arrays():
    return [(x.numpy(), y.numpy()) for x, y in batches()]
"""


def write_odd_files(folder: Path) -> None:
    (folder / "broken.py").write_text("def network(:\n")
    (folder / "text.npz").write_text("no zip")
    with (folder / "array.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    np.savez(folder / "objects.npz", inputs=np.array([{}, 1], dtype=object))
    np.savez(folder / "words.npz", inputs=np.array(["a", "b"]))
    np.savez(folder / "number.npz", inputs=np.float32(1))
    np.savez(folder / "nothing.npz", inputs=np.zeros((0, 12), np.float32))
    np.savez(folder / "names.npz", x=np.zeros((3, 12), np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds the network and odd files."""
    (tmp_path / "net.py").write_text(MODEL)
    write_odd_files(tmp_path)
    return tmp_path


def test_compile_inspect_run(aimc_command: Any) -> None:
    code, out, _ = aimc_command("compile", "net.py:network", "-o", "net.aimc", "--calibrate", "net.py:batches")
    assert code == 0
    assert "wrote net.aimc" in out
    code, out, _ = aimc_command("inspect", "net.aimc")
    assert code == 0
    for expected in ("12 x 20", "analog", "latency", "A 0", "percentile:99.9 of 64 samples"):
        assert expected in out
    code, out, _ = aimc_command("run", "net.aimc", "--data", "net.py:batches", "--times", "1s,1y", "--chips", "2")
    assert code == 0
    for expected in ("float network", "100.00 %", "1 s", "1 year", "A*", "64 samples on 2 programmed chips"):
        assert expected in out


def test_json_keys(aimc_command: Any) -> None:
    aimc_command("compile", "net.py:network", "-o", "net.aimc", "--calibrate", "net.py:batches")
    inspected = json.loads(aimc_command("inspect", "net.aimc", "--json")[1])
    assert inspected["tiles_used"] == 2
    assert inspected["tiles_available"] is None
    assert inspected["matrix_cells_used"] == 12 * 20 + 20 * 3
    assert inspected["utilization"] == pytest.approx((12 * 20 + 20 * 3) / (2 * 512 * 512))
    assert inspected["row_group_activations"] == 2
    first = inspected["layers"][0]
    assert {key: first[key] for key in ("name", "kind", "analog", "rows", "columns", "groups", "windows")} == {
        "name": "0",
        "kind": "linear",
        "analog": True,
        "rows": 12,
        "columns": 20,
        "groups": 1,
        "windows": 1,
    }
    assert first["pieces"] == first["tiles"] == 1
    assert set(inspected["timing"]) >= {"latency_s", "interval_s", "energy_j", "bounds"}
    ran = json.loads(aimc_command("run", "net.aimc", "--data", "net.py:batches", "--chips", "2", "--json")[1])
    assert set(ran) >= {"float_metric", "times", "n_chips", "seed", "timing"}
    assert set(ran["times"][0]) >= {"time_s", "mean", "std", "a_star"}
    assert ran["float_metric"] == 1.0


def test_output_bounds(aimc_command: Any) -> None:
    data, chip = ("--calibrate", "net.py:batches"), ("--set", "tile.adc.out_bound=calibrated")
    code, out, _ = aimc_command("compile", "net.py:network", "-o", "net.aimc", *chip)
    assert code == 0
    assert "output bounds  none yet: running needs them (aimc calibrate FILE --data DATA)" in " ".join(out.split("\n"))
    code, out, _ = aimc_command("compile", "net.py:network", "-o", "net.aimc", *chip, *data)
    assert code == 0
    assert "mse of the same samples: 2 bounds, " in out
    code, _, _ = aimc_command("calibrate", "net.aimc", "--data", "net.py:batches", "--output-ranges", "k-sigma:5")
    assert code == 0
    ranges = json.loads(aimc_command("inspect", "net.aimc", "--json")[1])["ranges"]
    assert ranges["outputs"]["method"] == "k-sigma:5"
    assert [row["op"] for row in ranges["outputs"]["rows"]] == ["0", "2"]
    first = ranges["outputs"]["rows"][0]
    assert set(first) == {
        "op", "group", "row_block", "column_block", "slice", "bound", "largest", "clipped", "note",
    }  # fmt: skip
    assert 0 < first["bound"] < 20
    assert aimc_command("run", "net.aimc", "--data", "net.py:batches", "--times", "1s", "--chips", "1")[0] == 0
    for arguments, message in (
        ((*chip, "--output-ranges", "max"), "--output-ranges max sets nothing without data"),
        ((*data, "--output-ranges", "max"), "max for output ranges sets nothing: no tile that this program uses"),
    ):
        code, _, err = aimc_command("compile", "net.py:network", "-o", "net.aimc", *arguments)
        assert code == 2
        assert message in " ".join(err.split())


def test_npz_data_and_calibrate(aimc_command: Any) -> None:
    x = np.random.default_rng(0).normal(size=(30, 12)).astype(np.float32)
    np.savez("data.npz", inputs=x, labels=np.zeros(30, np.int64))
    aimc_command("compile", "net.py:network", "-o", "net.aimc")
    code, _, err = aimc_command("run", "net.aimc", "--data", "data.npz", "--chips", "1")
    assert code == 2
    assert "no input ranges" in err
    assert aimc_command("calibrate", "net.aimc", "--data", "data.npz", "--ranges", "max")[0] == 0
    code, out, _ = aimc_command("run", "net.aimc", "--data", "data.npz", "--chips", "1", "--limit", "7")
    assert code == 0
    assert "7 samples" in out


def test_npz_of_other_kinds_of_number(aimc_command: Any) -> None:
    x = np.random.default_rng(0).normal(size=(30, 12)).astype(np.float32)
    np.savez("inputs.npz", inputs=x.astype(">f4"))
    assert aimc_command("compile", "net.py:network", "-o", "net.aimc", "--calibrate", "inputs.npz")[0] == 0
    found = []
    for labels in (np.arange(30) % 3, (np.arange(30) % 3).astype(np.uint16), (np.arange(30) % 3).astype(np.float32)):
        np.savez("data.npz", inputs=x, labels=labels)
        found.append(aimc_command("run", "net.aimc", "--data", "data.npz", "--chips", "1", "--times", "1s", "--json"))
    assert found[0][0] == 0
    assert found[0] == found[1] == found[2]
    np.savez("data.npz", inputs=x.astype(np.float64), labels=np.arange(30) % 3)
    code, _, err = aimc_command("run", "net.aimc", "--data", "data.npz", "--chips", "1")
    assert code == 2
    assert "float" in err.lower()
    np.savez("data.npz", inputs=x, labels=np.arange(29) % 3)
    code, _, err = aimc_command("run", "net.aimc", "--data", "data.npz")
    assert code == 2
    assert "data.npz: 30 inputs but 29 labels" in err


def test_functions_may_give_arrays(aimc_command: Any) -> None:
    aimc_command("compile", "net.py:network", "-o", "net.aimc", "--calibrate", "net.py:arrays")
    once, again = (
        aimc_command("run", "net.aimc", "--data", f"net.py:{name}", "--chips", "1", "--times", "1s", "--json")
        for name in ("arrays", "batches")
    )
    assert once[0] == 0
    assert once == again


def test_modules_are_found_in_the_working_folder(aimc_command: Any) -> None:
    Path("models_of_mine.py").write_text(MODEL)
    assert aimc_command("compile", "models_of_mine:network")[0] == 0


def test_pt2_models(aimc_command: Any) -> None:
    x = torch.zeros(1, 4)
    torch.export.save(torch.export.export(torch.nn.Linear(4, 2).eval(), (x,)), "linear.pt2")
    assert aimc_command("compile", "linear.pt2", "-o", "net.aimc", "--chip", "ideal")[0] == 0
    torch.export.save(torch.export.export(torch.nn.Linear(4, 2).eval(), (), {"input": x}), "keyword.pt2")
    code, _, err = aimc_command("compile", "keyword.pt2")
    assert code == 2
    assert "takes keyword inputs (input), which the command line cannot give: use aimc.compile" in err


def test_set_changes_the_chip(aimc_command: Any) -> None:
    code, out, _ = aimc_command(
        "compile", "net.py:network", "--set", "tile.rows=8", "--set", "tile.columns=8", "--json"
    )
    assert code == 0
    assert json.loads(out)["tiles_used"] == 2 * 3 + 3


def test_rules_bound_the_groups_of_a_tile(aimc_command: Any) -> None:
    Path("grouped.py").write_text(
        "import torch\ndef network():\n    return torch.nn.Conv1d(6, 6, 1, groups=6).eval(), (torch.zeros(1, 6, 4),)\n"
    )
    for rule, tiles in (((), 1), (("--rule", "*=groups_per_tile:2"), 3)):
        code, out, _ = aimc_command("compile", "grouped.py:network", *rule, "--json")
        assert code == 0
        assert json.loads(out)["tiles_used"] == tiles


def test_rules_and_chips(aimc_command: Any) -> None:
    code, out, _ = aimc_command("compile", "net.py:network", "--rule", "2=digital", "--json")
    assert code == 0
    assert [layer["analog"] for layer in json.loads(out)["layers"]] == [True, False]
    code, out, _ = aimc_command("chips")
    assert code == 0
    for name in ("analog-fabric", "hermes", "ibm-34-tile", "neurram", "isaac", "ideal"):
        assert name in out
    code, out, _ = aimc_command("chips", "hermes")
    assert code == 0
    assert "Le Gallo" in out
    assert "133 ns" in out
    assert json.loads(aimc_command("chips", "hermes", "--json")[1])["name"] == "hermes"


def test_disasm(aimc_command: Any) -> None:
    aimc_command("compile", "net.py:network", "-o", "net.aimc")
    code, out, _ = aimc_command("disasm", "net.aimc")
    assert code == 0
    assert "mvm" in out
    code, out, _ = aimc_command("disasm", "net.aimc", "--json")
    assert code == 0
    assert json.loads(out)["tasks"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compile", "zoo:lenet"), "the zoo has no network 'lenet'"),
        (("compile", "net.py:missing"), "has no function 'missing'; it has"),
        (("compile", "nowhere.py:network"), "no such file"),
        (("compile", "network"), "names no model: write zoo:NAME"),
        (("compile", "net.py:batches"), r"must return (model, example inputs)"),
        (("compile", "net.py:network", "--chip", "hermez"), "hermes"),
        (("compile", "net.py:network", "--set", "tile.rowz=128"), "did you mean 'rows'"),
        (("compile", "net.py:network", "--rule", "2"), "write PATTERN=analog"),
        (("compile", "net.py:network", "--rule", "2=groups_per_tile:x"), "or PATTERN=groups_per_tile:N, as in"),
        (("compile", "net.py:network", "--rule", "2=groups_per_tile:0"), "groups_per_tile is 0: give 1 or more"),
        (("compile", "net.py:network", "--calibrate", "absent.npz"), "does not exist"),
        (("inspect", "absent.aimc"), "does not exist"),
        (("inspect", "."), "cannot be read: Is a directory"),
        (("compile", "net.py:fails"), "net.py:fails fails, called without arguments: NameError: name 'absent' is not"),
        (("compile", "net.py:needs"), "called without arguments: TypeError: needs() missing 1 required"),
        (
            ("compile", "broken.py:network"),
            "broken.py cannot be imported: SyntaxError: invalid syntax (broken.py, line",
        ),
        (("compile", "net.py:network", "-o", "absent/net.aimc"), "there is no folder absent; make it"),
        (("compile", "net.py:network", "-o", "."), "is a folder: give the name of a file"),
        (("compile", "net.py:network", "--ranges", "max"), "add --calibrate DATA"),
        (("compile", "net.py:network", "--calibrate", "net.py:late"), "net.py:late fails, called without arguments"),
        (("compile", "net.py:network", "--calibrate", "net.py:alone"), "batch 0 is a Tensor of 64, no pair (inputs,"),
        (("compile", "net.py:network", "--calibrate", "text.npz"), "text.npz cannot be read as .npz"),
        (("compile", "net.py:network", "--calibrate", "array.npz"), "array.npz cannot be read as .npz"),
        (("compile", "net.py:network", "--calibrate", "objects.npz"), "objects.npz cannot be read as .npz: Object arr"),
        (("compile", "net.py:network", "--calibrate", "words.npz"), "inputs holds <U1, no numbers"),
        (("compile", "net.py:network", "--calibrate", "number.npz"), "inputs is a single number"),
        (("compile", "net.py:network", "--calibrate", "nothing.npz"), "nothing.npz holds no samples"),
        (("compile", "net.py:network", "--calibrate", "names.npz"), "names.npz lacks inputs: it holds x"),
    ],
)
def test_mistakes_exit_with_2_and_no_traceback(aimc_command: Any, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = aimc_command(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_does_not_fit(aimc_command: Any) -> None:
    code, _, err = aimc_command("compile", "net.py:network", "--set", "tile.count=1")
    assert code == 2
    assert "needs 2 tiles" in err
    assert "smallest chip that fits" in err


def test_mvm_error_prints_and_plots(aimc_command: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    options = ("--set", "tile.rows=32", "--set", "tile.columns=16", "--vectors", "8", "--times", "1s,1y")
    code, out, _ = aimc_command("mvm-error", *options, "--plot", "error.svg")
    assert code == 0
    for expected in ("programming noise", "all together", "without drift compensation", "1 year", "wrote error.svg"):
        assert expected in out
    assert (tmp_path / "error.svg").exists()
    code, out, _ = aimc_command("mvm-error", *options, "--recalibrate", "1h", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["rows"], found["columns"], found["recalibration"]) == (32, 16, "1 h")
    assert len(found["together"]["errors"]) == 2


def test_run_takes_a_recalibration_policy(aimc_command: Any) -> None:
    aimc_command("compile", "net.py:network", "-o", "net.aimc", "--calibrate", "net.py:batches")
    options = ("--data", "net.py:batches", "--times", "1y", "--chips", "1")
    code, out, _ = aimc_command("run", "net.aimc", *options, "--recalibrate", "never")
    assert code == 0
    assert "recalibrated: never" in out
    code, _, err = aimc_command("run", "net.aimc", *options, "--recalibrate", "hourly")
    assert code == 2
    assert "write always, never, a period as in 1h" in err


def test_run_reports_what_bound_management_repeats(aimc_command: Any) -> None:
    options = ("--data", "net.py:batches", "--times", "1y", "--chips", "1")
    for bound in ("0.5", "50"):
        keys = ("--set", "nonidealities.mvm.bound_management=true", "--set", f"tile.adc.out_bound={bound}")
        aimc_command("compile", "net.py:network", "-o", "net.aimc", "--calibrate", "net.py:batches", *keys)
        out, found = (aimc_command("run", "net.aimc", *options, *more)[1] for more in ((), ("--json",)))
        repeats = json.loads(found).get("repeats")
        assert ("bound management repeats" in out) == (repeats is not None) == (bound == "0.5")
        if repeats is not None:
            assert repeats["mvms"] == pytest.approx(sum(repeats["by_op"].values()))
            assert repeats["energy_j"] > 0


def test_run_takes_a_precision(aimc_command: Any) -> None:
    aimc_command("compile", "net.py:network", "-o", "net.aimc", "--calibrate", "net.py:batches")
    options = ("--data", "net.py:batches", "--times", "1y", "--chips", "1")
    code, out, _ = aimc_command("run", "net.aimc", *options, "--precision", "exact")
    assert code == 0
    assert "precision: exact (as asked)" in " ".join(out.split())
    code, out, _ = aimc_command("run", "net.aimc", *options, "--precision", "exact", "--json")
    assert set(json.loads(out)["precision"].values()) == {"exact (as asked)"}
    code, _, err = aimc_command("run", "net.aimc", *options, "--precision", "exakt")
    assert code == 2
    assert "did you mean 'exact'?" in err


def test_run_corrects_chips_as_they_age(aimc_command: Any, tmp_path: Path) -> None:
    (tmp_path / "normed.py").write_text(
        MODEL.replace("nn.Linear(12, 20), nn.ReLU()", "nn.Linear(12, 20), nn.BatchNorm1d(20), nn.ReLU()")
    )
    aimc_command("compile", "normed.py:network", "-o", "n.aimc", "--calibrate", "normed.py:batches", "--ranges", "mse")
    options = ("--data", "normed.py:batches", "--times", "1y", "--chips", "2", "--json")
    found = {}
    for names in ((), ("columns",), ("columns", "norms")):
        extra = [part for name in names for part in (f"--{name}", "normed.py:batches")]
        code, out, _ = aimc_command("run", "n.aimc", *options, *extra)
        assert code == 0
        found[names] = json.loads(out)
        assert found[names]["corrections"] == list(names)
    assert found[()]["times"][0]["values"] != found["columns",]["times"][0]["values"]


def test_version(aimc_command: Any) -> None:
    code, out, _ = aimc_command("--version")
    assert (code, out.strip()) == (0, f"aimc_compiler {aimc.__version__}")

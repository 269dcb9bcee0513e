"""The commands on networks of several entries, as a user runs them."""

import json
from pathlib import Path
from typing import Any

import pytest

MODEL = """
import torch
from torch import nn

import aimc_compiler as aimc

torch.manual_seed(0)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(12, 20), nn.Linear(20, 3)

    def forward(self, x):
        return self.decode(self.encode(x))

    def encode(self, x):
        return torch.relu(self.enc(x))

    def decode(self, h):
        return self.dec(h)

MODEL, X = Net().eval(), torch.randn(32, 12)
H = MODEL.encode(X).detach()

def network():
    return MODEL, {"encode": aimc.Entry(inputs=(X[:1],), method="encode"),
                   "decode": aimc.Entry(inputs=(H[:1],), method="decode"), "whole": (X[:1],)}

def odd():
    return MODEL, {"a b": (X[:1],)}

def data():
    labels = MODEL(X).argmax(1)
    return {"encode": [(X, labels)], "decode": [(H, labels)], "whole": [(X, labels)]}

def whole():
    return data()["whole"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One with the network in a file."""
    (tmp_path / "net.py").write_text(MODEL)
    return tmp_path


def test_compile_prints_a_line_an_entry_and_the_shared_tiles_once(aimc_command: Any) -> None:
    code, out, err = aimc_command("compile", "net.py:network", "-o", "net.aimc", "--calibrate", "net.py:data")
    assert code == 0, err
    assert "entries       encode, decode, whole" in out
    assert "2 matrix operations, 2 of them analog; 300 weights" in out
    assert "percentile:99.9 of 96 samples" in out
    assert out.count("A enc") == 1
    assert "layers of entry 'encode' (the others: aimc inspect FILE --entry NAME)" in out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith(("encode ", "whole "))}
    # name, operations on tiles, tiles, MVMs, then three figures with their units
    assert lines["encode"][1:4] == ["1", "1", "1"]
    assert lines["whole"][1:4] == ["2", "2", "2"]
    assert lines["whole"][5::2] == ["ns", "ns", "nJ"]
    assert "one sample" not in out
    code, out, _ = aimc_command("inspect", "net.aimc", "--entry", "decode")
    assert code == 0
    assert "20 x 3" in out
    assert "12 x 20" not in out
    assert "one sample" in out


def test_json_holds_every_entry(aimc_command: Any) -> None:
    aimc_command("compile", "net.py:network", "-o", "net.aimc")
    found = json.loads(aimc_command("inspect", "net.aimc", "--entry", "decode", "--json")[1])
    assert (found["network"], found["entry"], found["tiles_used"]) == ("Net", "decode", 2)
    assert [layer["name"] for layer in found["layers"]] == ["dec"]
    assert list(found["entries"]) == ["encode", "decode", "whole"]
    brief = found["entries"]["decode"]["timing"]
    assert brief == {name: found["timing"][name] for name in ("latency_s", "interval_s", "energy_j")}
    assert {name: each["mvms"] for name, each in found["entries"].items()} == {"encode": 1, "decode": 1, "whole": 2}
    first = json.loads(aimc_command("inspect", "net.aimc", "--json")[1])
    assert first["entry"] == "encode"
    whole = found["entries"]["whole"]["timing"]
    assert whole["energy_j"] > found["timing"]["energy_j"] > 0


def test_run_compare_calibrate_and_disasm_take_an_entry(aimc_command: Any) -> None:
    aimc_command("compile", "net.py:network", "-o", "net.aimc")
    code, out, err = aimc_command("calibrate", "net.aimc", "--data", "net.py:whole", "--entry", "whole")
    assert code == 0, err
    assert "percentile:99.9 of 32 samples" in out
    run = ("run", "net.aimc", "--times", "1s", "--chips", "2")
    code, out, err = aimc_command(*run, "--data", "net.py:data", "--entry", "decode")
    assert code == 0, err
    assert "32 samples on 2 programmed chips of analog-fabric, entry decode, seed 0" in out
    ran = json.loads(aimc_command(*run, "--data", "net.py:whole", "--entry", "whole", "--json")[1])
    assert (ran["entry"], ran["float_metric"]) == ("whole", 1.0)
    code, out, err = aimc_command("compare", "net.aimc", "--data", "net.py:data", "--entry", "decode", "--time", "1s")
    assert code == 0, err
    assert "Net:decode on one programmed chip" in out
    code, out, _ = aimc_command("disasm", "net.aimc", "--entry", "decode")
    assert code == 0
    assert 'op="dec"' in out
    assert 'op="enc"' not in out


def test_what_a_user_gets_wrong(aimc_command: Any) -> None:
    aimc_command("compile", "net.py:network", "-o", "net.aimc")
    for arguments, message in (
        (("inspect", "net.aimc", "--entry", "decod"), "no entry 'decod': did you mean 'decode'"),
        (("calibrate", "net.aimc", "--data", "net.py:whole"), "several entries (encode, decode, whole), and the"),
        (
            ("calibrate", "net.aimc", "--data", "net.py:data", "--entry", "encode"),
            "'dec' of entry 'decode' sees none of the calibration data, which is for 'encode'",
        ),
        (("compile", "net.py:odd", "-o", "x.aimc"), "'a b' is no name of an entry"),
        (("support", "zoo:llama_tiny/generation"), "did you mean 'llama_tiny/generate'"),
        (
            ("support", "net.py:network", "--chip", "hermes", "--rule", "enc=digital"),
            "rules place the matrices of all entries together: leave them out here",
        ),
    ):
        code, _, err = aimc_command(*arguments)
        assert code == 2
        assert message in err


def test_support_of_every_entry(aimc_command: Any) -> None:
    code, out, _ = aimc_command("support", "net.py:network")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("entry")] == [
        "entry encode:", "entry decode:", "entry whole:",
    ]  # fmt: skip
    assert set(json.loads(aimc_command("support", "net.py:network", "--json")[1])) == {"encode", "decode", "whole"}


def test_a_decoder_of_the_zoo_generates(aimc_command: Any) -> None:
    code, out, err = aimc_command("compile", "zoo:llama_tiny/generate", "-o", "llama.aimc")
    assert code == 0, err
    for expected in ("entries       prefill, step", "15 tiles, ", "prefill ", "step "):
        assert expected in out

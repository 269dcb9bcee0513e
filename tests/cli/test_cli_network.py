"""`aimc support`, `aimc compare` and `--rules`, as a user runs them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

MODEL = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    layers = nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, 3)
    return nn.Sequential(*layers).eval(), torch.zeros(1, 2, 12)

def batches():
    torch.manual_seed(1)
    x = torch.randn(64, 2, 12)
    return [(x, network()[0](x).argmax(1))]

class Odd(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)

def odd():
    return nn.Sequential(nn.Linear(4, 4), Odd()).eval(), torch.zeros(1, 4)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds the network."""
    (tmp_path / "net.py").write_text(MODEL)
    return tmp_path


def test_support(aimc_command: Any) -> None:
    code, out, _ = aimc_command("support", "net.py:network")
    assert code == 0
    assert "3 operations analog, with 100.0 % of the multiply-accumulates and 884 weights; 2 digital; none" in out
    assert "tiles" not in out
    code, out, _ = aimc_command("support", "net.py:network", "--chip", "hermes", "--rules", "first-last-digital")
    assert code == 0
    assert "1 operation analog" in out
    assert "1 tile of hermes" in out
    code, out, _ = aimc_command("support", "net.py:network", "--chip", "hermes", "--rule", "5=digital", "--json")
    assert {op["name"]: op["place"] for op in json.loads(out)["ops"] if op["weights"]} == {
        "0": "analog", "3": "analog", "5": "digital",
    }  # fmt: skip


def test_support_lists_what_has_no_place(aimc_command: Any) -> None:
    code, out, _ = aimc_command("support", "net.py:odd")
    assert code == 1
    joined = " ".join(out.split())
    line = 1 + MODEL.splitlines().index("        return torch.special.bessel_j0(x)")
    assert f"unsupported: special_bessel_j0 at '1' (net.py:{line} in forward, `return torch.special" in joined
    code, out, _ = aimc_command("support", "net.py:odd", "--json")
    assert code == 1
    assert not json.loads(out)["supported"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("net.py:absent",), "net.py has no function 'absent'"),
        (("net.py:network", "--rules", "all-analog"), "give the chip as well"),
        (("net.py:network", "--set", "tile.rows=3"), "--set changes a chip: name it with --chip"),
        (("net.py:network", "--chip", "hermes", "--rules", "none.yaml"), "none.yaml cannot be read"),
        (("net.py:network", "--chip", "hermes", "--rules", "none"), "there is no preset of rules 'none'"),
    ],
)
def test_support_mistakes_exit_with_2(aimc_command: Any, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = aimc_command("support", *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_network_without_values_is_enough(aimc_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from aimc_compiler.zoo import NETWORKS
    from aimc_compiler.zoo.registry import Entry, Input

    def build() -> nn.Module:
        with torch.device("meta"):
            return nn.Sequential(nn.Linear(40, 30)).eval()

    small = Entry(build=build, inputs=(Input(shape=(1, 40)),), paper="", parameters=1230, meta=True)
    monkeypatch.setitem(NETWORKS, "llama_70b", small)
    code, _, err = aimc_command("support", "zoo:llama_70b")
    assert (code, err) == (0, "")
    assert aimc_command("compile", "zoo:llama_70b")[0] == 0


def test_compile_with_rules_shows_the_reasons(aimc_command: Any, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("- 'stem': {analog: true}\n- first-last-digital\n")
    code, _, err = aimc_command("compile", "net.py:network", "--rules", "rules.yaml")
    assert code == 2
    assert "rule 'stem' matches no matrix operation; there are 0, 3, 5" in err
    code, out, _ = aimc_command("compile", "net.py:network", "--rule", "5=analog", "--rules", "first-last-digital")
    assert code == 0
    assert "kept digital  0 (preset 'first-last-digital' says digital: the first convolution)" in out
    assert "(3) rule '5' says analog" in out
    (tmp_path / "rules.yaml").write_text("'*': {max_tiles: 1}\n")
    assert aimc_command("compile", "net.py:network", "-o", "net.aimc", "--rules", "rules.yaml")[0] == 0
    layers = json.loads(aimc_command("inspect", "net.aimc", "--json")[1])["layers"]
    assert [layer["reason"] for layer in layers] == [
        "rule '*' says digital: needs 1 tile, 0 left of max_tiles 1 (240 MACs a tile)",
        "rule '*' says analog: takes 1 tile of max_tiles 1 (800 MACs a tile)",
        "rule '*' says digital: needs 1 tile, 0 left of max_tiles 1 (60 MACs a tile)",
    ]


def test_compare(aimc_command: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert aimc_command("compile", "net.py:network", "-o", "net.aimc", "--calibrate", "net.py:batches")[0] == 0
    arguments = ("compare", "net.aimc", "--data", "net.py:batches")
    code, out, _ = aimc_command(*arguments, "--plot", "figure.svg", "--threshold", "60")
    assert code == 0
    assert "first below 60 dB: 0" in out
    assert "Sequential on one programmed chip of analog-fabric, 1 day after programming, 64 samples" in out
    assert "not shown: 1 view (--all)" in out
    assert (tmp_path / "figure.svg").stat().st_size > 1000
    assert "flatten" in aimc_command(*arguments, "--all")[1]
    code, out, _ = aimc_command(*arguments, "--time", "1h", "--chips", "2", "--limit", "10", "--json")
    found = json.loads(out)
    assert (found["time_s"], found["n_chips"], found["n_samples"]) == (3600.0, 2, 10)
    assert [op["kind"] for op in found["ops"] if op["analog"]] == ["conv1d", "linear", "linear"]
    code, _, err = aimc_command(*arguments, "--time", "1h,1d")
    assert code == 2
    assert "--time 1h,1d is 2 times: give one" in err


def test_a_mixture_says_what_it_is_timed_for(aimc_command: Any, folder: Path) -> None:
    (folder / "rules.yaml").write_text('"*.experts.*": {experts: 4, active: 2}\n')
    timed = "model.layers.0.block_sparse_moe.experts and 1 more: timed for 2 of 4 experts a token, balanced"
    code, out, _ = aimc_command("support", "zoo:mixtral_tiny", "--chip", "analog-fabric", "--rules", "rules.yaml")
    assert code == 0
    assert f"mixtures: {timed}" in out
    code, out, _ = aimc_command("compile", "zoo:mixtral_tiny", "--rules", "rules.yaml", "-o", "net.aimc")
    assert code == 0
    assert f"{timed}. Values follow the true routing" in " ".join(out.split())
    assert "64 of 128" in out
    assert len(json.loads(aimc_command("inspect", "net.aimc", "--json")[1])["mixtures"]) == 2

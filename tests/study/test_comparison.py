"""The chip beside the float network: ratios against runs of each alone, what is not compared, the report."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import NETWORKS
from rich.console import Console
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.errors import CalibrationError, DataError, MissingDependencyError
from aimc_compiler.report import (
    comparison_json,
    comparison_lines,
    comparison_rows,
    comparison_table,
    plot_comparison,
)
from aimc_compiler.study import Comparison

DAY_S = 86_400.0


def decibels(plain: Tensor, chip: Tensor) -> float:
    error = (chip - plain).double().square().sum()
    return float(10 * torch.log10(plain.double().square().sum() / error))


def rows(found: Comparison) -> dict[str, Any]:
    return {op.name: op for op in found.ops}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 16), nn.GELU(), nn.Linear(16, 4)).eval()


@pytest.fixture(scope="module")
def data() -> list[Tensor]:
    return list(torch.randn(50, 20, generator=torch.Generator().manual_seed(3)).split(20))


@pytest.fixture(scope="module")
def compiled(model: nn.Module, data: list[Tensor]) -> aimc.CompiledModel:
    return aimc.compile(model, "analog-fabric", (data[0][:1],), data, rules={"2": {"analog": False}})


@pytest.fixture(scope="module")
def found(compiled: aimc.CompiledModel, data: list[Tensor]) -> Comparison:
    return aimc.compare(compiled, data)


def test_accumulated_ratio_is_that_of_the_outputs(
    compiled: aimc.CompiledModel, data: list[Tensor], found: Comparison
) -> None:
    """The last operation's is that of the chip's outputs, run by itself over the same batches."""
    chip = compiled.deploy(0)
    outputs = torch.cat([chip(x, time_s=DAY_S) for x in data])
    plain = torch.cat([compiled.float_outputs(x) for x in data])
    assert rows(found)["4"].snr_db == pytest.approx(decibels(plain, outputs), abs=1e-4)
    assert rows(found)["4"].output
    assert (found.n_samples, found.n_chips, found.time_s) == (50, 1, DAY_S)


def test_own_ratio_is_that_of_the_operation_alone(
    compiled: aimc.CompiledModel, data: list[Tensor], found: Comparison, model: nn.Sequential
) -> None:
    """Of the last operation: a network of it alone, on the float network's inputs, with the same ranges and seed."""
    first = rows(found)["0"]
    assert first.own_db == first.snr_db
    last = rows(found)["4"]
    assert last.own_db > last.snr_db
    hidden = [model[:4](x).detach() for x in data]
    alone = aimc.compile(nn.Sequential(model[4]).eval(), "analog-fabric", (hidden[0][:1],), hidden)
    own = rows(aimc.compare(alone, hidden))["0"]
    # The same sizes, ranges and figures of the chip, other draws of its noise.
    assert last.own_db == pytest.approx(own.own_db, abs=3)


def test_rows_say_what_stands_where(found: Comparison) -> None:
    assert [(op.name, op.kind, op.analog, op.tiles, op.own_db is None) for op in found.ops] == [
        ("0", "linear", True, 1, False),
        ("1/relu", "relu", False, 0, True),
        ("2", "linear", False, 0, True),
        ("3/gelu", "gelu", False, 0, True),
        ("4", "linear", True, 1, False),
    ]


def test_batches_and_samples_do_not_matter_to_the_sums(
    compiled: aimc.CompiledModel, data: list[Tensor], found: Comparison
) -> None:
    joined = aimc.compare(compiled, [torch.cat(data)])
    for one, other in zip(found.ops, joined.ops, strict=True):
        assert one.snr_db == pytest.approx(other.snr_db, abs=1e-3)
    assert aimc.compare(compiled, data) == found


def test_an_ideal_chip_differs_by_rounding_alone(model: nn.Module, data: list[Tensor]) -> None:
    ideal = aimc.compile(model, "ideal", (data[0][:1],))
    compared = aimc.compare(ideal, data)
    assert all(op.snr_db > 100 for op in compared.ops if op.snr_db is not None)
    assert compared.first_break is None
    assert "no operation falls below 10 dB" in comparison_lines(compared)


def test_without_operations_on_tiles_all_is_exact(model: nn.Module, data: list[Tensor]) -> None:
    digital = aimc.compile(model, "analog-fabric", (data[0][:1],), rules={"*": {"analog": False}})
    compared = aimc.compare(digital, data)
    assert {op.snr_db for op in compared.ops} == {math.inf}
    assert compared.weakest is None
    plain = comparison_json(compared)
    assert {(op["exact"], op["snr_db"]) for op in plain["ops"]} == {(True, None)}
    json.dumps(plain, allow_nan=False)


def test_chips_are_averaged_in_the_sums(compiled: aimc.CompiledModel, data: list[Tensor], found: Comparison) -> None:
    several = aimc.compare(compiled, data, n_chips=3)
    chips = [compiled.deploy(0, chip_index=index) for index in range(3)]
    outputs = [torch.cat([chip(x, time_s=DAY_S) for x in data]) for chip in chips]
    plain = torch.cat([compiled.float_outputs(x) for x in data])
    last = rows(several)["4"]
    assert last.snr_db == pytest.approx(decibels(plain.repeat(3, 1), torch.cat(outputs)), abs=1e-4)
    each = torch.tensor([decibels(plain, one) for one in outputs])
    assert last.spread_db == pytest.approx(float(each.std()), abs=1e-4)
    assert rows(found)["4"].spread_db is None
    assert several.n_samples == 50


def test_drift_without_compensation_shows(compiled: aimc.CompiledModel, data: list[Tensor]) -> None:
    year_s = 365 * DAY_S
    fresh, kept, aged = (
        aimc.compare(compiled, data, time_s, recalibration=policy)
        for time_s, policy in ((1.0, "always"), (year_s, "always"), (year_s, "never"))
    )
    for op in ("0", "4"):
        assert rows(fresh)[op].own_db > rows(kept)[op].own_db > rows(aged)[op].own_db


def test_first_break_and_weakest(compiled: aimc.CompiledModel, data: list[Tensor], found: Comparison) -> None:
    ratios = [op.snr_db or 0 for op in found.ops]
    middle = sorted(ratios)[2] + 1e-6
    broken = aimc.compare(compiled, data, threshold_db=middle)
    expected = next(op.name for op, ratio in zip(found.ops, ratios, strict=True) if ratio < middle)
    assert broken.first_break is not None
    assert broken.first_break.name == expected
    assert found.weakest is not None
    assert found.weakest.own_db == min(op.own_db for op in found.ops if op.own_db is not None)
    assert f"least of its own: {found.weakest.name}, {found.weakest.own_db:.1f} dB" in comparison_lines(found)
    assert comparison_json(broken)["first_break"] == expected


class Odd(nn.Module):
    """Integers, booleans, infinities, results in tuples, zeros, a node of several results."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.dead = nn.Linear(6, 8), nn.Linear(8, 8, bias=False)
        nn.init.zeros_(self.dead.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.layer(x)
        largest, place = y.max(1)
        left, right = y.chunk(2, 1)
        masked = y.masked_fill(x.sum(1, keepdim=True) > 0, -math.inf)
        return largest, place, left * right, masked, self.dead(y)


def test_what_cannot_be_compared_says_why() -> None:
    torch.manual_seed(0)
    model, x = Odd().eval(), torch.randn(30, 6)
    compiled = aimc.compile(model, "analog-fabric", (x[:1],), [x])
    found = aimc.compare(compiled, x.split(10))
    by_kind = {op.kind: op for op in found.ops if op.kind != "linear"}
    assert by_kind["max"].note == "results of int64 are left out"
    plain, chip = compiled.float_outputs(x), compiled.deploy(0)(x, time_s=DAY_S)
    assert by_kind["max"].snr_db == pytest.approx(decibels(plain[0], chip[0]), abs=1e-4)
    assert by_kind["max"].output
    assert by_kind["chunk"].view
    assert rows(found)["layer"].snr_db == pytest.approx(by_kind["chunk"].snr_db, abs=1e-4)
    assert (by_kind["gt"].snr_db, by_kind["gt"].note) == (None, "bool values have no signal-to-noise ratio")
    share = 100 * float((x.sum(1) > 0).double().mean())
    assert by_kind["masked_fill"].note == f"{share:.3g} % of the float values are not finite: left out"
    finite = plain[3].isfinite()
    assert by_kind["masked_fill"].snr_db == pytest.approx(decibels(plain[3][finite], chip[3][finite]), abs=1e-4)
    assert (rows(found)["dead"].snr_db, rows(found)["dead"].note) == (None, "the float values are all zero")
    lines = comparison_lines(found)
    assert "not compared: 1 operation (bool values have no signal-to-noise ratio)" in lines
    assert "not compared: 1 operation (the float values are all zero)" in lines
    assert "not shown: 1 view (--all)" in lines


class Threshold(nn.Module):
    """Infinite where the chip's noise decides: finite in one and infinite in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 50)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y.masked_fill(y > 0, math.inf)


def test_infinities_in_one_alone_are_the_worst_ratio() -> None:
    torch.manual_seed(0)
    model, x = Threshold().eval(), torch.randn(40, 6)
    found = aimc.compare(aimc.compile(model, "analog-fabric", (x[:1],), [x]), [x], n_chips=2)
    assert found.ops[-1].snr_db == -math.inf
    assert found.first_break is found.ops[-1]
    assert comparison_json(found)["ops"][-1]["snr_db"] == "-inf"
    assert found.ops[-1].spread_db is None


@pytest.mark.parametrize("name", ["inception", "tied", "attention", "upsampling", "two_inputs", "in_place"])
def test_other_networks(name: str) -> None:
    """Several inputs and outputs, one matrix used several times, products of activations, keyword inputs."""
    model, args, kwargs = NETWORKS[name]()
    example = {**dict(zip(("x", "side"), args, strict=False)), **kwargs} if kwargs else args
    if kwargs:
        compiled = aimc.compile(model, "ideal", args, example_kwargs=kwargs)
        with pytest.raises(DataError, match="batch 0 cannot be compared"):
            aimc.compare(compiled, [args])
        return
    found = aimc.compare(aimc.compile(model, "ideal", args), [example])
    assert found.n_samples == 2
    assert all(op.snr_db > 80 for op in found.ops if op.snr_db is not None)
    assert any(op.output for op in found.ops)


def test_table(found: Comparison) -> None:
    stream = io.StringIO()
    Console(width=110, file=stream).print(comparison_table(found))
    lines = stream.getvalue().splitlines()
    assert lines[0].split()[:3] == ["operation", "kind", "where"]
    assert len(lines) == 6
    assert lines[5].startswith("4 (output)  linear  analog       1")
    assert lines[1].count("█") == round(20 * (found.ops[0].snr_db or 0) / 40)


def test_large_networks_show_their_matrices(data: list[Tensor]) -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(20) for layer in (nn.Linear(20, 20), nn.ReLU())]
    network = nn.Sequential(nn.Linear(20, 20), nn.Tanhshrink(), *layers).eval()
    deep = aimc.compile(network, "analog-fabric", (data[0][:1],), data)
    linear, tanh, shrunk = (op.snr_db or 0 for op in aimc.compare(deep, data).ops[:3])
    found = aimc.compare(deep, data, threshold_db=(min(linear, tanh) + shrunk) / 2)
    shown = comparison_rows(found)
    assert found.first_break is found.ops[2], "a digital operation, which the table shows all the same"
    kept = {op.name for op in found.ops if op.kind == "linear" or op.output or op is found.first_break}
    assert {op.name for op in shown} == kept
    assert comparison_rows(found, every=True) == found.ops
    assert f"not shown: {43 - len(shown)} digital operations (--all)" in comparison_lines(found)


def test_figure(found: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    for name in ("figure.svg", "figure.png"):
        assert plot_comparison(found, tmp_path / name).stat().st_size > 1000
    assert "accumulated" in (tmp_path / "figure.svg").read_text()
    with pytest.raises(DataError, match=r"ends in \.svg, \.png, \.pdf"):
        plot_comparison(found, tmp_path / "figure.jpeg")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'aimc_compiler\[report\]'"):
        plot_comparison(found, tmp_path / "figure.svg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_chips": 0}, "not 0 chips, 3 batches"),
        ({"data": []}, "0 batches"),
        ({"threshold_db": math.nan}, "and nan dB"),
        ({"time_s": -1.0}, "0 or later"),
        ({"data": [(torch.zeros(2, 20), torch.zeros(2))]}, "batch 0 cannot be compared: .* without labels"),
        ({"data": [torch.zeros(2, 21)]}, r"batch 0 cannot be compared: .*input input_1 has shape \(2, 21\)"),
        ({"recalibration": "sometimes"}, "no recalibration policy"),
    ],
)
def test_bad_arguments(
    compiled: aimc.CompiledModel, data: list[Tensor], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        aimc.compare(compiled, **{"data": data, **arguments})


def test_needs_ranges(model: nn.Module, data: list[Tensor]) -> None:
    with pytest.raises(CalibrationError, match="no input ranges"):
        aimc.compare(aimc.compile(model, "analog-fabric", (data[0][:1],)), data)


def test_a_loop_is_one_operation_with_the_tiles_of_its_matrices() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    torch.manual_seed(0)
    x = torch.randn(20, 7, 6)
    found = aimc.compare(aimc.compile(Last().eval(), "analog-fabric", (x[:1],), calibration=[x]), [x])
    matrices = [(op.name, op.kind, op.tiles) for op in found.ops if op.analog]
    assert matrices == [("rnn.weight_ih_l0", "linear", 1), ("rnn.cell_l0", "recurrent", 1), ("head", "linear", 1)]
    assert all(op.snr_db is not None and 0 < op.snr_db < 60 for op in found.ops if op.analog)

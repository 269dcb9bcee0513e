"""Recurrent layers on the chip: steps by hand, precisions, batches, counts, rules, corrections, artifacts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from recurrent_networks import RECURRENT
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import aimc_compiler as aimc
from aimc_compiler.analog.fast.units import missing_units
from aimc_compiler.chip import override
from aimc_compiler.executor import Device, matrix_on_tiles
from aimc_compiler.executor.on_tiles import StepsOnTiles

DAY_S = 86_400.0
STEPS, FEATURES, WIDTH = 9, 20, 24
UNITS = missing_units()
needs_units = pytest.mark.skipif(UNITS is not None, reason=str(UNITS))


class Stack(nn.Module):
    """Two LSTM layers and a head."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, WIDTH, 2, batch_first=batch_first)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


def stack(batch_first: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return Stack(batch_first).eval()


def inputs(count: int = 4, seed: int = 1) -> Tensor:
    return torch.randn(count, STEPS, FEATURES, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def compiled() -> aimc.CompiledModel:
    chip = aimc.load_chip("analog-fabric", overrides=("tile.rows=16", "tile.columns=40"))
    return aimc.compile(stack(), chip, (inputs(1),), calibration=[inputs(32, seed=2)])


def error(compiled: aimc.CompiledModel, outputs: Tensor, x: Tensor) -> float:
    expected = compiled.float_outputs(x)
    return float((outputs - expected).norm() / expected.norm())


def test_step_t_is_multiplication_t_of_a_sample() -> None:
    """An RNN, multiplied out by hand on the tiles of its matrices."""
    torch.manual_seed(0)
    model, x = nn.RNN(FEATURES, WIDTH, batch_first=True).eval(), inputs()
    compiled = aimc.compile(model, "analog-fabric", (x,), calibration=[x])
    assert compiled.ranges is not None
    y, last = compiled.deploy(seed=3, precision="exact")(x, time_s=DAY_S)
    modules, chip = compiled.graph.matrix_modules(), compiled.chip
    ops = {op.name: op for op in compiled.workload.matrix_ops}
    held = {name: matrix_on_tiles(op, modules[name], compiled.mapping, chip, seed=3) for name, op in ops.items()}
    ranges = {name: compiled.ranges.of(name) for name in ops}
    given = held["weight_ih_l0"].forward(x, ranges["weight_ih_l0"], DAY_S)
    h = torch.zeros(len(x), WIDTH)
    for step in range(STEPS):
        h = torch.tanh(given[:, step] + held["weight_hh_l0"].forward(h, ranges["weight_hh_l0"], DAY_S, first_call=step))
        torch.testing.assert_close(y[:, step], h, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(last[0], h, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", sorted(RECURRENT))
def test_networks_on_a_noisy_chip(name: str) -> None:
    """Close to the network, and as many multiplications as the program has: a device checks that at every run."""
    model, args = RECURRENT[name]()
    compiled = aimc.compile(model, "analog-fabric", args, calibration=[args])
    result = compiled.deploy(seed=0).run(*args, time_s=DAY_S)
    assert result.counts.mvms == 2 * compiled.timing.counts.mvms
    expected = pytree.tree_leaves(compiled.float_outputs(*args))
    for ours, theirs in zip(pytree.tree_leaves(result.outputs), expected, strict=True):
        assert 0 < float((ours - theirs).norm() / theirs.norm()) < 0.5


def test_multiplications_of_a_sample_are_the_steps(compiled: aimc.CompiledModel) -> None:
    pieces = {op.name: len(compiled.mapping.pieces_of(op.matrix)) for op in compiled.workload.analog_ops}
    assert pieces["lstm.weight_hh_l0"] == 2 * 3
    device = compiled.deploy(seed=0)
    device(inputs(3))
    done = {name: op.tiles.mvms for name, op in device._ops.items()}
    assert done == {name: 3 * STEPS * count for name, count in pieces.items()}


@pytest.mark.parametrize("precision", ["exact", pytest.param("fast", marks=needs_units)])
def test_a_sample_does_not_depend_on_its_batch(compiled: aimc.CompiledModel, precision: Any) -> None:
    device, x = compiled.deploy(seed=0, precision=precision), inputs()
    together = device(x)
    device.rewind()
    alone = torch.cat([device(sample[None]) for sample in x])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)


def test_sequences_of_a_sample_do_not_depend_on_its_batch() -> None:
    model, (x, h) = RECURRENT["folded"]()
    device = aimc.compile(model, "analog-fabric", (x, h), calibration=[(x, h)]).deploy(seed=0)
    together = device(x, h)
    device.rewind()
    alone = torch.cat([device(*sample) for sample in zip(x.split(1), h.split(1), strict=True)])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)
    device.rewind()
    same = device(x[:1, :1].expand(1, 2, -1, -1), h[:1, :1].expand(1, 2, -1))
    assert not torch.equal(same[0, 0], same[0, 1])  # each sequence has noise of its own


def test_time_first_is_the_same_chip(compiled: aimc.CompiledModel) -> None:
    x = inputs()
    first = aimc.compile(
        stack(batch_first=False), compiled.chip, (x.transpose(0, 1)[:, :1],),
        calibration=[inputs(32, seed=2).transpose(0, 1)], batch_dim=1,
    )  # fmt: skip
    assert first.timing.latency_s == compiled.timing.latency_s
    y = first.deploy(seed=0)(x.transpose(0, 1))
    torch.testing.assert_close(y.transpose(0, 1), compiled.deploy(seed=0)(x), rtol=1e-5, atol=1e-6)


@needs_units
def test_one_kernel_is_its_steps(compiled: aimc.CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    x = inputs(16)
    device = compiled.deploy(seed=0, precision="fast")
    fused = device(x, time_s=DAY_S)
    counts = {name: (op.tiles.mvms, op.tiles.adc_conversions) for name, op in device._ops.items()}
    monkeypatch.setattr(StepsOnTiles, "run_all", lambda *_: None)
    steps = compiled.deploy(seed=0, precision="fast")
    apart = steps(x, time_s=DAY_S)
    # Gates in another order of rounding can tip a converter over, which then goes on through the steps.
    assert float(((fused - apart).abs() > 1e-5).float().mean()) < 0.02
    assert {name: (op.tiles.mvms, op.tiles.adc_conversions) for name, op in steps._ops.items()} == counts


@needs_units
def test_fast_and_exact_are_equally_far_from_the_network(compiled: aimc.CompiledModel) -> None:
    x = inputs(64, seed=5)
    errors = {p: error(compiled, compiled.deploy(seed=0, precision=p)(x, time_s=DAY_S), x) for p in ("exact", "fast")}
    assert errors["fast"] == pytest.approx(errors["exact"], rel=0.05)
    assert 0 < errors["exact"] < 0.3


def test_rules_put_the_recurrent_matrix_on_digital_units(compiled: aimc.CompiledModel) -> None:
    rules = {"lstm.weight_hh_*": {"analog": False}}
    half = aimc.compile(stack(), compiled.chip, (inputs(1),), rules=rules, calibration=[inputs(32, seed=2)])
    assert [op.name for op in half.workload.analog_ops] == ["lstm.weight_ih_l0", "lstm.weight_ih_l1", "head"]
    pieces = [len(half.mapping.pieces_of(op.matrix)) for op in half.workload.analog_ops]
    assert half.timing.counts.mvms == STEPS * sum(pieces)
    device, x = half.deploy(seed=0), inputs()
    assert 0 < error(half, device(x), x) < 0.1
    assert set(device.precision) == {"lstm.weight_ih_l0", "lstm.weight_ih_l1", "head"}


def test_corrected_columns_of_recurrent_matrices(compiled: aimc.CompiledModel) -> None:
    chip = override(compiled.chip, {"nonidealities.drift_compensation": "off"})
    aged = compiled.with_chip(chip).deploy(seed=0)
    x = inputs(64, seed=5)
    before = aged(x, time_s=365 * DAY_S)
    aged.correct_columns([inputs(64, seed=6)], 365 * DAY_S)
    assert error(compiled, aged(x, time_s=365 * DAY_S), x) < 0.5 * error(compiled, before, x)
    assert aged._ops["lstm.weight_hh_l0"].scaling.gain is not None
    aged.correct_columns(None)
    aged.rewind()
    assert torch.equal(aged(x, time_s=365 * DAY_S), before)


def test_an_artifact_is_the_same_chip(compiled: aimc.CompiledModel, tmp_path: Path) -> None:
    compiled.save(tmp_path / "lstm.aimc")
    again = aimc.load(tmp_path / "lstm.aimc")
    assert again.timing.latency_s == compiled.timing.latency_s
    assert torch.equal(again.deploy(seed=1)(inputs()), compiled.deploy(seed=1)(inputs()))


def test_an_empty_batch(compiled: aimc.CompiledModel) -> None:
    device: Device = compiled.deploy(seed=0)
    assert device(inputs(4)[:0]).shape == (0, STEPS, 5)

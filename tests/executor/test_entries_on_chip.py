"""Entries on one programmed chip: the same devices, noise of their own, shared corrections, a cache between calls."""

import pytest
import torch
from entry_networks import CONTEXT, PROMPT, SHAPE, Parts, generator, integers, numbers
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.chip import override
from aimc_compiler.errors import DataError
from aimc_compiler.zoo.llama import LLAMA_TINY, LlamaShape, llama

DAY_S = 86_400.0


class Twice(nn.Module):
    """`one` and `other` are the same call; `short` stops after the first layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.second = nn.Linear(12, 12), nn.BatchNorm1d(12), nn.Linear(12, 3)
        self.norm.running_mean = torch.linspace(-0.1, 0.1, 12)

    def one(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.norm(self.first(x))))

    other = one

    def short(self, x: Tensor) -> Tensor:
        return self.first(x)


CALLS = {name: aimc.Entry(inputs=(numbers(1, 12),), method=name) for name in ("one", "other", "short")}


def compiled_twice(**changes: object) -> aimc.CompiledModel:
    chip = override(aimc.load_chip("analog-fabric"), dict(changes))
    data = {name: [numbers(64, 12, seed=9)] for name in CALLS}
    return aimc.compile(Twice().eval(), chip, entries=CALLS, calibration=data)


@pytest.fixture(scope="module")
def compiled() -> aimc.CompiledModel:
    return compiled_twice()


@pytest.mark.parametrize("shape", [SHAPE, LLAMA_TINY])
def test_prefill_and_steps_are_the_whole_forward(shape: LlamaShape) -> None:
    network, entries = generator(shape)
    compiled = aimc.compile(network, "ideal", entries=entries)
    tokens = integers(3, CONTEXT, below=shape.vocabulary)
    with torch.no_grad():
        whole = llama(shape)(tokens)
    device = compiled.deploy()
    logits, cache = device(tokens[:, :PROMPT], entry="prefill")
    assert torch.allclose(logits, whole[:, :PROMPT], atol=1e-5)
    for place in range(PROMPT, CONTEXT):
        position = torch.full((3,), place)
        logits, cache = device(tokens[:, place : place + 1], cache, position, entry="step")
        assert torch.allclose(logits[:, 0], whole[:, place], atol=1e-5)


@pytest.mark.parametrize("precision", ["exact", "auto"])
def test_entries_read_the_same_devices(compiled: aimc.CompiledModel, precision: str) -> None:
    quiet = {f"nonidealities.mvm.{name}": 0.0 for name in ("sigma_out", "sigma_w")}
    device = compiled_twice(**quiet).deploy(seed=1, precision=precision)  # type: ignore[arg-type]
    x = numbers(5, 12)
    first = device(x, time_s=DAY_S)
    assert torch.equal(device(x, time_s=DAY_S, entry="other"), first)
    assert not torch.allclose(first, compiled.float_outputs(x), atol=1e-4)
    one, other, short = (device._entries[name].ops["first"].tiles for name in CALLS)
    assert one is other
    # In `one` a batch norm is folded into the layer: another digital operation on the same devices.
    assert torch.equal(one.state(DAY_S).weights, short.state(DAY_S).weights)


def test_noise_is_of_the_entry_and_its_samples_alone(compiled: aimc.CompiledModel) -> None:
    x = numbers(6, 12)
    device = compiled.deploy(seed=1)
    one, other = device(x), device(x, entry="other")
    assert not torch.equal(one, other)
    assert device.samples == 12
    again = compiled.deploy(seed=1)
    assert torch.equal(again(x[:4], entry="other"), other[:4])  # without the entry before, in other batches
    again(x, entry="short")
    assert torch.equal(again(x[4:], entry="other"), other[4:])
    assert torch.equal(again(x), one)
    again.rewind()
    assert again.samples == 0
    assert torch.equal(again(x, entry="other"), other)
    alone = aimc.compile(Twice().eval(), "analog-fabric", entries={"one": CALLS["one"]})
    assert torch.equal(alone.calibrate([numbers(64, 12, seed=9)]).deploy(seed=1)(x), one)


def test_runs_are_priced_by_the_program_of_their_entry(compiled: aimc.CompiledModel) -> None:
    device = compiled.deploy()
    for name in compiled.entries:
        timing = compiled.entry(name).timing
        result = device.run(numbers(4, 12), entry=name)
        assert result.timing is timing
        assert result.energy_j == pytest.approx(4 * timing.energy_j)
        assert (result.counts.samples, result.counts.mvms) == (4, 4 * timing.counts.mvms)
    assert compiled.entry("short").timing.energy_j < compiled.entry("one").timing.energy_j


def test_repeats_are_booked_where_they_were_made() -> None:
    managed = {"nonidealities.mvm.bound_management": True, "tile.adc.out_bound": 0.5}
    device = compiled_twice(**managed).deploy()
    found = device.run(numbers(8, 12), entry="short")
    assert found.repeats.mvms > 0
    assert sum(device.repeated_in("short").values()) == found.repeats.mvms
    assert not device.repeated
    whole = device.run(numbers(8, 12))
    assert sum(device.repeated.values()) == whole.repeats.mvms > 0
    assert sum(device.repeated_in("short").values()) == found.repeats.mvms


def test_corrections_reach_every_entry_that_shares_the_operation(compiled: aimc.CompiledModel) -> None:
    device, x = compiled.deploy(seed=2), numbers(6, 12)
    before = {name: device(x, entry=name, time_s=DAY_S) for name in compiled.entries}
    device.correct_columns([numbers(256, 12, seed=4)], DAY_S, entry="short")
    device.rewind()
    after = {name: device(x, entry=name, time_s=DAY_S) for name in compiled.entries}
    # In `one` a batch norm is folded into the layer: another digital operation, on the same tile.
    assert not torch.equal(after["short"], before["short"])
    assert torch.equal(after["one"], before["one"])
    device.correct_columns([numbers(256, 12, seed=4)], DAY_S, entry="other")
    device.recalibrate_norms([numbers(256, 12, seed=4)], DAY_S, entry="one")
    device.rewind()
    assert not torch.equal(device(x, time_s=DAY_S), before["one"])
    assert device._entries["one"].ops["second"].scaling.gain is not None
    device.correct_columns(None, entry="short")
    assert device._entries["one"].ops["second"].scaling.gain is not None
    device.correct_columns(None)
    device.recalibrate_norms(None)
    device.rewind()
    for name in compiled.entries:
        assert torch.equal(device(x, entry=name, time_s=DAY_S), before[name])


def test_evaluate_and_compare_take_an_entry(compiled: aimc.CompiledModel) -> None:
    x = numbers(32, 12, seed=5)
    data = [(x, compiled.float_outputs(x, entry="other").argmax(1))]
    found = aimc.evaluate(compiled, data, times_s=(1.0,), n_chips=2, entry="other")
    assert (found.entry, found.float_metric, found.n_samples) == ("other", 1.0, 32)
    short = aimc.compare(compiled, [x], 1.0, entry="short")
    assert short.network == "Twice:short"
    assert [op.name for op in short.ops if op.analog] == ["first"]
    assert short.n_samples == 32
    with pytest.raises(DataError, match="no entry 'shorts': did you mean 'short'"):
        aimc.compare(compiled, [x], 1.0, entry="shorts")
    with pytest.raises(DataError, match="no entry 'shorts'"):
        aimc.evaluate(compiled, data, entry="shorts")


def test_devices_of_one_operation_are_asked_for_by_name(compiled: aimc.CompiledModel) -> None:
    device = compiled.deploy()
    assert set(device.precision) == {"first", "second"}
    assert device.conductances("first", DAY_S).shape == (1, 12, 12)
    assert torch.equal(compiled.deploy().compensation("second", DAY_S), device.compensation("second", DAY_S))


@pytest.mark.parametrize("precision", ["exact", "auto"])
def test_loops_of_another_entry_have_noise_of_their_own(precision: str) -> None:
    x = numbers(6, 3, 6)
    calls = {name: aimc.Entry(inputs=(x[:1],), method=name) for name in ("all", "last")}
    compiled = aimc.compile(Parts().eval(), "analog-fabric", entries=calls, calibration={"all": [x], "last": [x]})
    device = compiled.deploy(precision=precision)  # type: ignore[arg-type]
    whole = device(x, entry="last")
    again = compiled.deploy(precision=precision)  # type: ignore[arg-type]
    again(x[:5])
    parts = [again(part, entry="last") for part in x.split([1, 3, 2])]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-6)
    again.rewind()
    assert not torch.allclose(again(x, entry="last"), device(x, entry="last"), atol=1e-3)


def test_a_matrix_is_programmed_once() -> None:
    rule = {"tolerance": 0.1, "max_pulses": 4, "pulse_time": "1 us", "pulse_energy": "1 nJ"}
    changes = {f"nonidealities.device.write_verify.{name}": value for name, value in rule.items()}
    both = compiled_twice(**changes)
    alone = aimc.compile(Twice().eval(), both.chip, entries={"one": CALLS["one"]}).calibrate([numbers(64, 12, seed=9)])
    assert both.deploy().programming() == alone.deploy().programming()

"""What `prepare_hwa` gives back: the user's network, readable, copied; and what it refuses."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from trained_networks import BothWays

import aimc_compiler as aimc
from aimc_compiler.errors import CalibrationError, RuleError, TrainingError
from aimc_compiler.training import RASCH_2023, Recipe, prepare_hwa
from aimc_compiler.zoo.fashion import FashionResNet
from aimc_compiler.zoo.gpt2 import Conv1D


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 3))


def test_the_network_stays_what_it_was() -> None:
    plain = FashionResNet()
    before = copy.deepcopy(plain.state_dict())
    trained = prepare_hwa(plain, "analog-fabric")
    assert isinstance(trained, FashionResNet)
    assert isinstance(trained.head, nn.Linear)
    assert set(before) <= set(trained.state_dict())
    added = {name.rpartition(".")[2] for name in set(trained.state_dict()) - set(before)}
    assert added == {"input_range", "column_scale", "seen"}
    trained.train()(torch.rand(2, 1, 28, 28)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    assert type(plain) is FashionResNet
    assert "stem.0: analog (default: every matrix is analog)" in str(trained.hwa)


def test_a_state_dict_goes_there_and_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = prepare_hwa(small(), "analog-fabric", {"column_gain": True}).train()
    trained(torch.randn(4, 9))
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    other = prepare_hwa(small(), "analog-fabric", {"column_gain": True})
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    for one, two in zip(trained.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_copies_are_networks_of_their_own() -> None:
    trained = prepare_hwa(small(), "analog-fabric").train()
    twin = copy.deepcopy(trained)
    twin(torch.randn(4, 9))
    assert int(twin[0].analog.seen) == 1
    assert int(trained[0].analog.seen) == 0
    assert trained.hwa.batches.number == 0


def test_a_prepared_network_is_saved_whole_and_goes_on() -> None:
    torch.manual_seed(0)
    trained = prepare_hwa(small(), "analog-fabric", {"range_batches": 1}).train()
    x, found = torch.randn(4, 9), []
    trained(x).sum().backward()
    for network in (trained, pickle.loads(pickle.dumps(trained))):
        assert type(network) is type(trained)
        torch.manual_seed(1)
        network.zero_grad()
        network(x).sum().backward()
        found.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("layer", "x", "outputs"),
    [
        (nn.Linear(9, 7), torch.randn(0, 9), (0, 7)),
        (nn.Linear(1100, 7, bias=False), torch.randn(3, 0, 1100), (3, 0, 7)),
        (nn.Conv2d(4, 6, 3, groups=2), torch.randn(0, 4, 8, 8), (0, 6, 6, 6)),
        (nn.Conv2d(100, 6, 3), torch.randn(0, 100, 8, 8), (0, 6, 6, 6)),
        (nn.ConvTranspose2d(4, 6, 3), torch.randn(0, 4, 8, 8), (0, 6, 10, 10)),
    ],
)
def test_a_batch_without_samples_is_one(layer: nn.Module, x: torch.Tensor, outputs: tuple[int, ...]) -> None:
    trained = prepare_hwa(nn.Sequential(layer), "analog-fabric").train()
    for y in (trained(x), trained.eval()(x)):
        assert y.shape == outputs
    trained.train()(x).sum().backward()
    assert not trained[0].weight.grad.any()
    assert torch.equal(trained[0].analog.input_range, torch.ones_like(trained[0].analog.input_range))
    filled = torch.randn(2 * max(1, x.shape[0]), *(size or 2 for size in x.shape[1:]))
    assert trained(filled).isfinite().all()


@pytest.mark.parametrize(
    ("layer", "x", "message"),
    [
        (nn.Linear(9, 7), torch.randn(4, 8), r"0 was given torch.float32 of shape \(4, 8\): .* of shape \(\.\.\., 9\)"),
        (nn.Linear(9, 7), torch.ones(4, 9, dtype=torch.int64), r"0 was given torch.int64 of shape \(4, 9\)"),
        (nn.Conv2d(4, 6, 3, groups=2), torch.randn(2, 3, 8, 8), r"of shape \(batch, 4, height, width\)"),
        (nn.Conv1d(4, 6, 3), torch.randn(2, 4, 8, 8), r"of shape \(batch, 4, width\)"),
        (nn.LSTM(4, 6), torch.randn(2, 3, 5), r"0.weight_ih_l0 was given .* \(\.\.\., 4\)"),
        (
            nn.Linear(9, 7),
            torch.ones(4, 9).double(),
            r"0 was given torch.float64 .*: give torch.float32, as its weight",
        ),
        (nn.Conv1d(4, 6, 3), torch.ones(2, 4, 8).bfloat16(), r"0 was given torch.bfloat16 .*: give torch.float32"),
    ],
)
def test_inputs_that_do_not_fit_are_named(layer: nn.Module, x: torch.Tensor, message: str) -> None:
    trained = prepare_hwa(nn.Sequential(layer), "analog-fabric")
    for mode in (True, False):
        with pytest.raises(TrainingError, match=message):
            trained.train(mode)(x)


def test_the_network_itself_may_be_one_layer() -> None:
    trained = prepare_hwa(nn.Linear(4, 2), "analog-fabric").train()
    trained(torch.randn(3, 4))
    plain, learned = trained.__aimc_export__()
    assert type(plain) is nn.Linear
    assert [matrix.op for matrix in learned.matrices] == ["weight"]


def test_rules_choose_and_compile_takes_them_over() -> None:
    trained = prepare_hwa(small(), "analog-fabric", rules={"2": {"analog": False}}).train()
    assert type(trained[2]) is nn.Linear
    trained(torch.randn(4, 9))
    compiled = aimc.compile(trained.eval(), "analog-fabric", (torch.randn(1, 9),))
    assert [(op.name, op.analog) for op in compiled.workload.matrix_ops] == [("0", True), ("2", False)]
    assert compiled.ranges is not None
    assert compiled.ranges.method == "learned"
    assert [row.range for row in compiled.ranges.rows] == pytest.approx([float(trained[0].analog.input_range.detach())])


def test_presets_need_example_inputs() -> None:
    with pytest.raises(RuleError, match=r"'first-last-digital' needs the network's graph: give example_inputs"):
        prepare_hwa(FashionResNet(), "analog-fabric", rules="first-last-digital")
    trained = prepare_hwa(
        FashionResNet(), "analog-fabric", rules="first-last-digital", example_inputs=(torch.rand(1, 1, 28, 28),)
    )
    digital = [choice.path for choice in trained.hwa.choices if not choice.analog]
    assert digital == ["stem.0", "head"]


class Halving(nn.Linear):
    """A layer with a method of its own."""

    def halved(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self(x) / 2
        return y


class Rounding(nn.Conv1d):
    """A layer whose product is another."""

    def _conv_forward(self, x: Any, weight: Any, bias: Any) -> Any:
        return super()._conv_forward(x, weight.round(), bias)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("layer", [Halving(6, 6), Conv1D(6, 6), nn.Sequential(Halving(6, 6), Conv1D(6, 6))])
def test_layers_keep_their_own_class(layer: nn.Module) -> None:
    torch.manual_seed(0)
    x, trained = torch.randn(4, 6), prepare_hwa(layer, "analog-fabric").train()
    trained(x)
    for twin in (trained, copy.deepcopy(trained), pickle.loads(pickle.dumps(trained))):
        assert [type(each).__name__ for each in twin.modules()] == [type(each).__name__ for each in trained.modules()]
        assert torch.equal(twin.eval()(x), trained.eval()(x))
        for path, other in layer.named_modules():
            one: Any = twin.get_submodule(path)
            assert isinstance(one, type(other))
            if isinstance(one, Halving):
                assert torch.equal(2 * one.halved(x), one(x))
    plain, _ = trained.__aimc_export__()
    assert [type(each) for each in plain.modules()] == [type(each) for each in layer.modules()]


def test_a_layer_with_a_product_of_its_own_is_not_trained() -> None:
    with pytest.raises(TrainingError, match="has no module to train for tiles"):
        prepare_hwa(nn.Sequential(Rounding(4, 4, 3)), "analog-fabric")
    layer: Any = nn.Linear(6, 6)
    layer.forward = lambda x: x
    with pytest.raises(TrainingError, match="has no module to train for tiles"):
        prepare_hwa(nn.Sequential(layer), "analog-fabric")


def test_a_module_at_two_paths_is_one() -> None:
    layer, x = nn.Linear(6, 6), torch.randn(4, 6)
    plain = nn.Sequential(layer, nn.ReLU(), nn.ModuleDict({"again": layer})["again"], nn.Linear(6, 2))
    trained = prepare_hwa(plain, "analog-fabric", rules={"2": {"analog": True}})
    assert trained[0] is trained[2]
    assert type(trained[2]).__name__ == "TrainedLinear"
    assert trained(x).isfinite().all()
    assert int(trained[0].analog.seen) == 1
    for given in (None, (x,)):
        with pytest.raises(RuleError, match=r"('0'|'2'|use one matrix).*write a rule that matches both"):
            prepare_hwa(plain, "analog-fabric", rules={"2": {"analog": False}}, example_inputs=given)


def test_a_weight_that_is_stored_both_ways_keeps_its_ranges() -> None:
    x = torch.randn(5, 9)
    plain = BothWays(nn.Linear(9, 7), Conv1D(7, 9))
    trained = prepare_hwa(plain, "analog-fabric").train()
    trained(x)
    compiled = aimc.compile(trained.eval(), "analog-fabric", (x[:1],))
    assert [row.range for row in compiled.ranges.rows] == [
        pytest.approx(float(layer.analog.ranges())) for layer in (trained.there, trained.back)
    ]


def test_sizes_choose() -> None:
    trained = prepare_hwa(small(), "analog-fabric", rules={"*": {"min_cells": 30}})
    assert [choice.analog for choice in trained.hwa.choices] == [True, False]
    assert "21 cells are fewer than min_cells 30" in trained.hwa.choices[1].reason


def test_an_untrained_network_has_no_ranges_to_take_over() -> None:
    compiled = aimc.compile(prepare_hwa(small(), "analog-fabric").eval(), "analog-fabric", (torch.randn(1, 9),))
    assert compiled.ranges is None
    with pytest.raises(CalibrationError, match="no input ranges"):
        compiled.deploy()


def test_another_cut_is_refused_and_calibration_mends_it() -> None:
    trained = prepare_hwa(nn.Linear(600, 4), "analog-fabric").train()
    x = torch.randn(4, 600)
    trained(x)
    trained.eval()
    with pytest.raises(CalibrationError, match=r"cut it into rows \[300, 300\] and columns \[4\]; .* rows \[200, 200"):
        aimc.compile(trained, aimc.load_chip("analog-fabric", ["tile.rows=256"]), (x[:1],))
    compiled = aimc.compile(trained, aimc.load_chip("analog-fabric", ["tile.rows=256"]), (x[:1],), calibration=[x])
    assert compiled.ranges is not None
    assert compiled.ranges.method != "learned"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.ReLU()), "Sequential has no module to train for tiles"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), "remove_parametrizations"),
        (torch.relu, "no torch.nn.Module"),
        (nn.Sequential(nn.LazyLinear(3)), "'0' is lazy, without weights so far: call the network once"),
        (nn.Sequential(prune.l1_unstructured(nn.Linear(3, 2), "weight", 0.5)), "'weight' of '0' is .*prune.remove"),
    ],
)
def test_what_cannot_be_trained_is_named(model: nn.Module, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        prepare_hwa(model, "analog-fabric")


def test_a_prepared_network_is_not_prepared_again() -> None:
    with pytest.raises(TrainingError, match="is prepared for hardware-aware training already"):
        prepare_hwa(prepare_hwa(small(), "analog-fabric"), "analog-fabric")


def test_a_rule_without_a_match_is_an_error() -> None:
    with pytest.raises(RuleError, match=r"rule 'hed' matches no module that can be trained"):
        prepare_hwa(FashionResNet(), "analog-fabric", rules={"hed": {"analog": False}})


def test_a_functional_weight_is_named_with_example_inputs() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.weight = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.layer(x) @ self.weight
            return y

    with pytest.raises(TrainingError, match="is held by no module that can be swapped"):
        prepare_hwa(Functional(), "analog-fabric", example_inputs=(torch.randn(1, 4),))


def test_a_run_has_steps() -> None:
    with pytest.raises(TrainingError, match="steps is 0: give the mini-batches of the run, 1 or more, or None"):
        prepare_hwa(small(), "analog-fabric", steps=0)


def test_every_recipe_setting_is_read() -> None:
    """A setting that nothing reads would be a promise that is not kept."""
    import dataclasses

    folder = Path(aimc.training.__file__).parent if hasattr(aimc, "training") else None
    folder = folder or Path(aimc.__file__).parent / "training"
    text = "\n".join(file.read_text() for file in folder.glob("*.py") if file.name != "recipe.py")
    unread = [field.name for field in dataclasses.fields(Recipe) if f".{field.name}" not in text]
    assert set(unread) <= {"distillation", "temperature"}


@pytest.mark.parametrize(("chip", "late"), [("analog-fabric", 31_536_000.0), ("neurram", 172_800.0)])
def test_weights_at_a_time_are_between_the_evaluation_times_of_the_chip(chip: str, late: float) -> None:
    def times_s(recipe: Any) -> tuple[float, ...] | None:
        trained: Any = prepare_hwa(nn.Linear(8, 4), chip, recipe)
        ageing = trained.analog.noise.ageing
        return None if ageing is None else ageing.times_s

    found = times_s(None)
    assert found is not None
    assert (found[0], found[-1]) == (1.0, late)
    assert times_s({"drift_s": [60.0, 60.0]}) == (60.0,)
    assert times_s(RASCH_2023) is times_s({"noise": "gaussian"}) is times_s({"noise": "none"}) is None


def test_what_is_said_of_batch_norms() -> None:
    normed = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
    assert "frozen from mini-batch 9" in str(prepare_hwa(normed, "analog-fabric", steps=10).hwa)
    assert "not frozen: prepare_hwa was not given steps" in str(prepare_hwa(normed, "analog-fabric").hwa)
    assert "frozen" not in str(prepare_hwa(normed, "analog-fabric", RASCH_2023, steps=10).hwa)
    assert "frozen" not in str(prepare_hwa(nn.Linear(8, 4), "analog-fabric").hwa)

"""The training loop: it learns, and a run that is stopped anywhere ends with the bytes of one that was not."""

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import aimc_compiler as aimc
from aimc_compiler.errors import DataError, TrainingError
from aimc_compiler.training import Recipe, Task, parameter_groups, prepare_hwa, train
from aimc_compiler.training.checkpoint import load_checkpoint, save_checkpoint


class StoppedError(Exception):
    """What the power cut is here."""


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


def looped() -> nn.Module:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            states, _ = self.cell(x.reshape(len(x), 2, 3))
            y: Tensor = self.head(states[:, -1])
            return y

    return Tagger()


def samples(count: int = 35, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    return x, (x[:, :3] + 0.3 * x[:, 3:]).argmax(1)


def task(**changes: Any) -> Task:
    given = Task(
        network=network,
        train=samples(),
        validation=samples(40, 2),
        optimiser=partial(torch.optim.AdamW, lr=0.02),
        scheduler=lambda optimiser, steps: torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.02, steps),
        epochs=2,
        batch_size=10,
        weight_decay=0.01,
        range_rate=0.005,
    )
    return replace(given, **changes)


def stopping(at: int) -> Any:
    """A loss that fails in step ``at`` (from 0)."""
    calls = iter(range(10**6))

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if next(calls) == at:
            raise StoppedError
        return nn.functional.cross_entropy(outputs, targets)

    return loss


def loaded(path: Path) -> Any:
    state = load_checkpoint(path)
    for each in state["history"]:
        del each["seconds"]
    return state


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


RECIPES: list[dict[str, Any]] = [
    {"range_batches": 3, "distillation": 0.4, "freeze_norms": 0.6},
    {"range_batches": 50, "clip": "k-sigma", "clip_sigmas": 1.0, "remap_every": 3},
    {"range_batches": 2, "clip": "learned", "column_gain": True, "drop_connect": 0.1},
    {"drift_s": (1.0, 1e6), "noise_ramp": 4, "ranges": "fixed"},
]


def loader() -> Any:
    return DataLoader(TensorDataset(*samples()), 10, shuffle=True)


def own_loader() -> Any:
    return DataLoader(TensorDataset(*samples()), 10, shuffle=True, generator=torch.Generator())


def listed() -> Any:
    return list(zip(*(part.split(10) for part in samples()), strict=True))


MAKERS = {"linear": network, "loop": looped}
SOURCES = {"tensors": samples, "loader": loader, "own generator": own_loader, "list": listed}


@settings(deadline=None, max_examples=10, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    at=st.integers(0, 7),
    every=st.sampled_from([None, 1, 3]),
    recipe=st.sampled_from(RECIPES),
    maker=st.sampled_from(sorted(MAKERS)),
    source=st.sampled_from(sorted(SOURCES)),
    seed=st.integers(0, 3),
)
def test_a_run_that_is_stopped_ends_with_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    at: int,
    every: int | None,
    recipe: dict[str, Any],
    maker: str,
    source: str,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    given_task = task(network=MAKERS[maker], train=SOURCES[source]())
    whole = train(given_task, "analog-fabric", recipe, out=folder / "whole", seed=seed, every=every)
    stopped = replace(given_task, train=SOURCES[source](), loss=stopping(at))
    with pytest.raises(StoppedError):
        train(stopped, "analog-fabric", recipe, out=folder / "stopped", seed=seed, every=every)
    torch.manual_seed(at)  # another process begins with other generators
    again = replace(given_task, train=SOURCES[source]())
    resumed = train(again, "analog-fabric", recipe, out=folder / "stopped", seed=seed, every=every, resume=True)
    one, two = (folder / name for name in ("whole", "stopped"))
    assert (one / "weights.safetensors").read_bytes() == (two / "weights.safetensors").read_bytes()
    assert same(loaded(one / "checkpoint.aimct"), loaded(two / "checkpoint.aimct"))
    assert whole.steps == resumed.steps == 8
    assert [each.chip_metrics for each in whole.epochs] == [each.chip_metrics for each in resumed.epochs]


def test_it_learns_for_the_chip_and_compiles() -> None:
    big = task(train=samples(300), validation=samples(200, 2), epochs=6)
    found = []
    trained = train(big, "analog-fabric", {"range_batches": 20}, chips=2, report=found.append)
    assert [each.epoch for each in found] == [1, 2, 3, 4, 5, 6]
    assert found[-1].loss < 0.7 * found[0].loss
    assert found[-1].float_metric > 0.8
    assert len(found[-1].chip_metrics) == 2
    assert tuple(found) == trained.epochs
    x, y = samples(200, 2)
    compiled = aimc.compile(trained.model, "analog-fabric", (x[:1],))
    assert compiled.ranges is not None
    assert compiled.ranges.method == "learned"
    result = aimc.evaluate(compiled, [(x, y)], times_s=(1.0,), n_chips=2)
    assert result.float_metric == pytest.approx(found[-1].float_metric, abs=0.011)
    assert result.times[0].values == pytest.approx(found[-1].chip_metrics, abs=0.011)


def test_the_callers_generators_go_on_as_before() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(task(epochs=1), "analog-fabric", chips=0)
    assert torch.equal(torch.rand(3), expected)


def test_measuring_changes_nothing() -> None:
    recipe = {"clip": "column", "remap_every": 4, "range_batches": 3}
    one, two = (train(task(), "analog-fabric", recipe, chips=chips).model.state_dict() for chips in (0, 2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_other_runs_are_told_apart(tmp_path: Path) -> None:
    train(task(epochs=1), "analog-fabric", out=tmp_path / "run")
    with pytest.raises(TrainingError, match="holds a run already: resume it, or give another folder"):
        train(task(epochs=1), "analog-fabric", out=tmp_path / "run")
    with pytest.raises(TrainingError, match="belongs to a run with seed 0, this one has 1: give the same"):
        train(task(epochs=1), "analog-fabric", out=tmp_path / "run", resume=True, seed=1)
    with pytest.raises(TrainingError, match="with chip 'analog-fabric"):
        train(task(epochs=1), "hermes", out=tmp_path / "run", resume=True)
    with pytest.raises(TrainingError, match="belongs to a run with epochs 1, this one has 2"):
        train(task(), "analog-fabric", out=tmp_path / "run", resume=True)
    with pytest.raises(TrainingError, match="resume needs the folder"):
        train(task(), "analog-fabric", resume=True)
    again = train(task(epochs=1), "analog-fabric", out=tmp_path / "run", resume=True)
    assert len(again.epochs) == 1


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    train(task(epochs=1), "analog-fabric", out=tmp_path)
    path = tmp_path / "checkpoint.aimct"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"loss_sum"', b'"loss_sun"'))
    with pytest.raises(TrainingError, match=r"cannot be read as a checkpoint|damaged"):
        train(task(epochs=1), "analog-fabric", out=tmp_path, resume=True)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match="cannot be read as a checkpoint"):
        train(task(epochs=1), "analog-fabric", out=tmp_path, resume=True)


def test_a_checkpoint_gives_back_what_was_saved(tmp_path: Path) -> None:
    state = {
        "a": (1, 2.5, None, True),
        3: [torch.arange(4).reshape(2, 2).T, float("inf")],
        "c": Counter([5, 5]),
        "t": {"tensor": 1},
    }
    save_checkpoint(tmp_path / "one", state)
    found = load_checkpoint(tmp_path / "one")
    assert same(state, found)
    assert type(found["c"]) is Counter
    save_checkpoint(tmp_path / "two", state)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with pytest.raises(TrainingError, match=r"the checkpoint\['f'\] is a builtins.builtin_function_or_method"):
        save_checkpoint(tmp_path / "one", {"f": len})
    assert same(load_checkpoint(tmp_path / "one"), state)


def test_what_is_wrong_with_a_task_is_named() -> None:
    x, y = samples()
    for changes, message in (
        ({"train": (x, y[:-1])}, "34 targets and inputs of .35. samples"),
        ({"train": iter([(x, y)])}, "give a pair .inputs, targets. of tensors"),
        ({"validation": [x]}, "a batch of the validation data is a Tensor, no pair"),
        ({"network": lambda: 3}, "network of the task makes a int"),
        ({"loss": lambda outputs, targets: outputs.sum() * float("nan")}, r"the loss is nan in step 1 \(epoch 1\)"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(task(**changes), "analog-fabric")
    with pytest.raises(IndexError) as raised:
        train(task(train=(x, y + 7)), "analog-fabric")
    assert raised.value.__notes__ == ["in the loss of the task, step 1 (epoch 1)"]
    with pytest.raises(TrainingError, match="epochs of the task is 0"):
        task(epochs=0)
    with pytest.raises(TrainingError, match="metric of the task is 'f1': give 'accuracy' or a function"):
        task(metric="f1")
    for metric, validation, message in (
        ("accuracy", (x, y + 7), "targets are no class of the network"),
        (lambda outputs, targets: float("nan"), (x, y), "is nan for the float network on the validation data"),
        (lambda outputs, targets: (targets, 1), (x, y), "return one number, or a score for each sample"),
    ):
        with pytest.raises(DataError, match=message):
            train(task(metric=metric, validation=validation), "analog-fabric")


def test_what_is_learned_beside_weights_does_not_decay() -> None:
    model = prepare_hwa(network(), "analog-fabric", {"clip": "learned", "column_gain": True})
    own, tiles = parameter_groups(model, 0.1, 0.003)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)].rpartition(".")[2] for p in tiles["params"]} == {"input_range", "column_gain", "column_bound"}
    assert (own["weight_decay"], tiles["weight_decay"], tiles["lr"]) == (0.1, 0.0, 0.003)
    assert len(own["params"]) + len(tiles["params"]) == len(names)
    fixed = prepare_hwa(network(), "analog-fabric", Recipe(ranges="fixed"))
    assert [group["name"] for group in parameter_groups(fixed)] == ["network"]
    with pytest.raises(TrainingError, match="no parameter that requires a gradient"):
        parameter_groups(network().requires_grad_(False))

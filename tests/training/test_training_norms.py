"""Batch norms in training for a chip: frozen at the end of a run, and restated without another function."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.errors import TrainingError
from aimc_compiler.training import freeze_norms, prepare_hwa, restate_norms, train
from aimc_compiler.training.task import Task

QUIET = {"noise": "none", "read_noise": 0.0, "output_noise": 0.0, "range_batches": 1}


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 6),
        nn.BatchNorm1d(6, affine=False),
        nn.Linear(6, 3),
    )


def test_norms_are_frozen_at_the_end_of_a_run() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(9, 7), nn.BatchNorm1d(7), nn.BatchNorm1d(7, track_running_stats=False))
    trained = prepare_hwa(plain, "analog-fabric", {"freeze_norms": 0.4}, steps=5)
    means, training = [], []
    for _ in range(5):
        trained.train()
        x = torch.randn(4, 9) + 3
        trained(x)
        means.append(trained[1].running_mean.clone())
        training.append([part.training for part in trained])
    assert training == [[True, True, True]] * 3 + [[True, False, True]] * 2
    assert not torch.equal(means[1], means[2])
    assert torch.equal(means[2], means[4])
    trained(x).sum().backward()
    assert trained[1].weight.grad is not None


def test_a_frozen_norm_computes_what_it_computes_on_the_chip() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(9, 7), nn.BatchNorm1d(7))
    quiet = QUIET | {"freeze_norms": 1.0}
    trained = prepare_hwa(plain, "analog-fabric", quiet, steps=3)
    x = torch.randn(6, 9)
    trained.train()(x)
    seen = trained.train()(x)
    torch.testing.assert_close(seen, trained.eval()(x))
    free = prepare_hwa(plain, "analog-fabric", quiet)
    free.train()(x)
    assert not torch.allclose(free.train()(x), free.eval()(x), atol=1e-3)


def test_restated_norms_compute_the_same_with_the_statistics_of_their_inputs() -> None:
    torch.manual_seed(0)
    trained = prepare_hwa(convolutional(), "analog-fabric", QUIET)
    x = [torch.randn(5, 1, 6, 6) * 2 + 1 for _ in range(4)]
    for batch in x:
        trained.train()(batch)
    optimiser = torch.optim.SGD(trained.parameters(), lr=0.05)
    for batch in x:
        freeze_norms(trained)
        trained(batch).square().mean().backward()
        optimiser.step()
    before = copy.deepcopy(trained).eval()
    seen: list[torch.Tensor] = []
    trained[0].register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    restate_norms(trained, x)
    means = torch.stack([y.mean((0, 2, 3)) for y in seen]).mean(0)
    variances = torch.stack([y.transpose(0, 1).flatten(1).var(1) for y in seen]).mean(0)
    torch.testing.assert_close(trained[1].running_mean, means)
    torch.testing.assert_close(trained[1].running_var, variances)
    assert not torch.allclose(trained[1].running_mean, before[1].running_mean, atol=1e-3)
    assert torch.equal(trained[5].running_mean, before[5].running_mean)  # without weight and bias: as it was
    torch.testing.assert_close(trained.eval()(x[0]), before(x[0]), atol=2e-5, rtol=1e-4)
    assert int(trained[0].analog.seen) == int(before[0].analog.seen)


def test_norms_measured_again_find_what_restated_ones_say() -> None:
    """On a chip without nonidealities ``recalibrate_norms`` changes next to nothing then; before, it does."""
    torch.manual_seed(0)
    x = torch.randn(400, 6) + 1
    y = x[:, :3].argmax(1)
    task = Task(
        network=nn.Sequential(nn.Linear(6, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3)),
        train=(x, y),
        validation=(x, y),
        optimiser=lambda groups: torch.optim.SGD(groups, lr=0.2),
        epochs=3,
        batch_size=50,
    )
    trained = train(task, "ideal", QUIET | {"freeze_norms": 0.7, "converters": False}).model
    compiled = aimc.compile(trained, "ideal", (x[:1],))
    chip = compiled.deploy()
    before = chip(x)
    chip.recalibrate_norms([x])
    torch.testing.assert_close(chip(x), before, atol=0.03, rtol=0.02)


def test_restating_needs_data() -> None:
    with pytest.raises(TrainingError, match="is empty: give at least one batch of inputs"):
        restate_norms(prepare_hwa(convolutional(), "analog-fabric"), [])


@pytest.mark.parametrize(("given", "expected"), [(None, 1.0), (0.25, 0.25)])
@pytest.mark.parametrize("norms", [True, False])
def test_gradients_are_clipped_while_norms_are_frozen(given: float | None, expected: float, norms: bool) -> None:
    met: list[float] = []

    class Noting(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            parts = [p.grad.norm() for group in self.param_groups for p in group["params"] if p.grad is not None]
            met.append(float(torch.stack(parts).norm()))
            super().step(closure)

    torch.manual_seed(0)
    x = torch.randn(40, 6)
    task = Task(
        network=nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12) if norms else nn.ReLU(), nn.Linear(12, 3)),
        train=(x, x[:, :3].argmax(1)),
        validation=(x, x[:, :3].argmax(1)),
        optimiser=lambda groups: Noting(groups, lr=1e-6),
        loss=lambda outputs, targets: 1000 * nn.functional.cross_entropy(outputs, targets),
        epochs=1,
        batch_size=10,
        clip_gradient=given,
    )
    train(task, "analog-fabric", QUIET | {"freeze_norms": 0.5})
    assert len(met) == 4
    clipped = [True] * 4 if given else [False, False, norms, norms]
    assert [value <= expected * 1.001 for value in met] == clipped

"""Rescaled channels: the same function, fewer errors on tiles; and where there is nothing to scale, why."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.errors import TrainingError
from aimc_compiler.training import rescale_channels


class Attention(nn.Module):
    """A layer norm read by three projections, as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.q, self.k, self.v = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.fc = nn.Sequential(nn.Linear(8, 12), nn.ReLU(inplace=True), nn.Linear(12, 8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = self.q(h), self.k(h), self.v(h)
        y: Tensor = self.fc(torch.softmax(q @ k.mT, -1) @ v + x)
        return y


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.LeakyReLU(0.1),
        nn.Conv2d(8, 6, 1, groups=2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 10),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(10, 4),
    )


def pooled() -> nn.Module:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), Mean(), nn.Linear(8, 4))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(9, 20), nn.ReLU(), nn.Linear(20, 5)), (64, 9), 1),
    "sequences": (lambda: nn.Sequential(nn.Linear(9, 20), nn.ReLU(), nn.Linear(20, 5)), (16, 7, 9), 1),
    "convolutions": (convolutions, (16, 3, 12, 12), 4),
    "mean": (pooled, (16, 3, 6, 6), 1),
    "attention": (Attention, (16, 5, 8), 2),
}


def trained_like(model: nn.Module) -> nn.Module:
    """Norms as after training, not 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.2, 3)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    return model.eval()


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_the_function_stays_the_same(case: str, balance: float) -> None:
    torch.manual_seed(0)
    make, shape, pairs = CASES[case]
    model, x = trained_like(make()), torch.randn(shape)
    before = copy.deepcopy(model.state_dict())
    rescaled = rescale_channels(model, (x,), balance)
    assert len(rescaled.pairs) == pairs
    fresh = torch.randn(shape)
    torch.testing.assert_close(rescaled.model(fresh), model(fresh), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    changed = [name for name, value in rescaled.model.state_dict().items() if not torch.equal(value, before[name])]
    assert {reader for pair in rescaled.pairs for reader in pair.readers} <= set(changed)
    assert all(pair.least < 1 < pair.largest for pair in rescaled.pairs)


def test_a_batch_norm_and_all_readers_of_a_layer_norm_are_scaled() -> None:
    torch.manual_seed(0)
    first = rescale_channels(trained_like(convolutions()), (torch.randn(8, 3, 12, 12),)).pairs[0]
    assert (first.source, first.readers) == ("1", ("4.weight",))
    norm = rescale_channels(trained_like(Attention()), (torch.randn(8, 5, 8),)).pairs[0]
    assert (norm.source, norm.readers) == ("norm", ("q.weight", "k.weight", "v.weight"))


def error_on_chip(model: nn.Module, x: Tensor) -> float:
    """||y - y_float|| / ||y_float||, mean over three chips right after programming."""
    compiled = aimc.compile(model, "analog-fabric", (x[:1],), calibration=[x])
    y = model(x).detach()
    return sum(float((compiled.deploy(k)(x, time_s=1.0) - y).norm() / y.norm()) for k in range(3)) / 3


def test_unequal_channels_err_less_on_the_chip_once_balanced() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
    equal = torch.randn(200, 40)
    spread = torch.exp(torch.randn(64))
    with torch.no_grad():
        model[0].weight.mul_(spread[:, None])
        model[0].bias.mul_(spread)
        model[2].weight.div_(spread)
    before = error_on_chip(model, equal)
    after = error_on_chip(rescale_channels(model, (equal,)).model, equal)
    assert after < 0.8 * before


def test_silent_channels_stay() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0.0, -1.0
        model[2].weight[:, 5] = 0.0
    rescaled = rescale_channels(model, (torch.randn(50, 6),)).model
    for channel in (2, 5):
        assert torch.equal(rescaled[0].weight[channel], model[0].weight[channel])
    assert all(bool(value.isfinite().all()) for value in rescaled.state_dict().values())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(torch.relu(self.layer(x)))
        return y


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.layer(x) + x)
        return y


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2)), r"0: .* gelu at '1'.* not positively homogeneous"),
        (nn.Linear(4, 5), r"the network: its channels are outputs of the network"),
        (Tied(), r"layer: a parameter of it is computed from others, or used in several places"),
        (Residual(), r"layer: its channels meet others in add at the top level \(test_rescale.py:\d+ in forward"),
        (nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 2)), r"0: the norm has no scale and bias"),
        (nn.ReLU(), "ReLU has no layer whose channels can be scaled: no layers"),
    ],
)
def test_what_cannot_be_scaled_says_why(model: nn.Module, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        rescale_channels(model.eval(), (torch.randn(6, 4),))


def test_wrong_calls_are_named() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    with pytest.raises(TrainingError, match=r"in training mode.* call model.eval\(\) first"):
        rescale_channels(model.train(), (torch.randn(6, 4),))
    with pytest.raises(TrainingError, match="balance is 2: give a share"):
        rescale_channels(model.eval(), (torch.randn(6, 4),), balance=2)

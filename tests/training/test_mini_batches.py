"""What a mini-batch is in a loop of one's own: calls, checkpoints, evaluation and loading between them."""

import copy
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import aimc_compiler as aimc
from aimc_compiler.errors import TrainingError
from aimc_compiler.training import mini_batch, on_chip, prepare_hwa

CALM = {"read_noise": 0.0, "output_noise": 0.0}


class Scored(nn.Module):
    """A network with a method beside its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.tanh(self.first(x)))
        return y

    def loss(self, x: Tensor) -> Tensor:
        return (self.forward(x) - x).square().mean()

    def deep(self, x: Tensor, depth: int) -> Tensor:
        y: Tensor = self(x)
        return y if not depth else self.deep(y, depth - 1)


def prepared(recipe: dict[str, Any] | None = None) -> Any:
    torch.manual_seed(0)
    return prepare_hwa(Scored(), "analog-fabric", CALM | (recipe or {})).train()


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))


def test_a_call_of_forward_is_a_mini_batch_too() -> None:
    trained, x = prepared(), torch.randn(9, 6)
    losses = [float(trained.loss(x).detach()) for _ in range(4)]
    assert len(set(losses)) == 4
    assert trained.hwa.batches.number == 4
    assert int(trained.first.analog.seen) == int(trained.second.analog.seen) == 4


def test_parts_are_called_within_a_mini_batch_or_refused() -> None:
    trained, x = prepared(), torch.randn(9, 6)
    with pytest.raises(TrainingError, match=r"'first' was called in training mode outside of a mini-batch.*mini_batch"):
        trained.first(x)
    with mini_batch(trained):
        one, other = trained.first(x), trained.first(x)
        assert torch.equal(trained(x), trained.second(torch.tanh(one)))
    assert torch.equal(one, other)
    assert trained.hwa.batches.number == 1
    with mini_batch(trained):
        assert not torch.equal(trained.first(x), one)
    trained.eval()
    with mini_batch(trained):
        assert torch.equal(trained.first(x), trained.first(x))
    assert trained.hwa.batches.number == 2


def test_a_copy_that_is_made_within_a_mini_batch_is_within_none() -> None:
    trained, x, copies = prepared(), torch.randn(9, 6), []
    hook = trained.second.register_forward_hook(lambda *_: copies.append(copy.deepcopy(trained)))
    with mini_batch(trained):
        trained(x)
        copies.append(pickle.loads(pickle.dumps(trained.first)))
    hook.remove()
    made = copies[0]
    made.second._forward_hooks.clear()
    assert not torch.equal(made(x), made(x))
    assert made.hwa.batches.number == 3
    with pytest.raises(TrainingError, match="outside of a mini-batch"):
        copies[1](x)


def test_a_wrapper_is_no_prepared_network() -> None:
    wrapped: Any = nn.Sequential(prepared())
    for context in (mini_batch, on_chip):
        with pytest.raises(TrainingError, match=r"Sequential is no network of prepare_hwa.*of a wrapper what it wraps"):
            context(wrapped).__enter__()


def test_a_slice_of_a_prepared_network_is_no_network_of_its_own() -> None:
    torch.manual_seed(0)
    trained, x = prepare_hwa(two_layers(), "analog-fabric", CALM).train(), torch.randn(4, 6)
    with mini_batch(trained):
        assert torch.equal(trained[:2](x), torch.relu(trained[0](x)))
    assert torch.equal(trained.eval()[:2](x), torch.relu(trained[0](x)))
    with pytest.raises(TrainingError, match="is no network of prepare_hwa"):
        aimc.compile(trained[:2].eval(), "analog-fabric", (x,))


def test_calls_of_the_network_by_itself_belong_to_one() -> None:
    trained, x = prepared(), torch.randn(9, 6)
    with mini_batch(trained):
        trained.deep(x, 2)
    assert trained.hwa.batches.number == 1


def test_an_error_within_a_mini_batch_ends_it() -> None:
    trained = prepared()
    with pytest.raises(TrainingError, match=r"give torch.float32"):
        trained(torch.randn(9, 5))
    assert not trained.hwa.batches.under_way
    trained(torch.randn(9, 6))
    assert trained.hwa.batches.number == 2


def test_layers_in_training_mode_have_mini_batches_in_a_network_that_is_not() -> None:
    trained, x = prepared().eval(), torch.randn(9, 6)
    trained(x)
    assert trained.hwa.batches.number == 0
    trained.second.train()
    assert not torch.equal(trained(x), trained(x))
    assert int(trained.second.analog.seen) == 2
    assert int(trained.first.analog.seen) == 0


@pytest.mark.parametrize("recipe", [{}, {"column_gain": True}])  # in few passes, and operation by operation
def test_several_forward_passes_may_have_one_backward_pass(recipe: dict[str, Any]) -> None:
    """While ranges follow, a later mini-batch changes them; the gradient is that of their values in each."""
    x, gradients = torch.randn(9, 6), []
    for together in (True, False):
        trained = prepared(recipe)
        torch.manual_seed(1)
        losses: list[Tensor] = []
        for scale in (1.0, 3.0):
            losses.append(trained(scale * x).square().sum())
            if not together:
                losses.pop().backward()
        if together:
            sum(losses, torch.zeros(())).backward()
        gradients.append([p.grad for p in trained.parameters() if p.requires_grad])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


class Parts(nn.Module):
    """Its layers are made again for the backward pass, or not."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first: nn.Module = nn.Linear(6, 6) if kind == "linear" else nn.LSTM(6, 6, batch_first=True)
        self.second = nn.Linear(6, 6)
        self.again: Callable[..., Any] = lambda layer, x: layer(x)

    def forward(self, x: Tensor) -> Tensor:
        y = self.again(self.first, x)
        z: Tensor = self.again(self.second, y if isinstance(y, Tensor) else y[0])
        return z


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", ["linear", "lstm"])
@pytest.mark.parametrize("recipe", [{}, {"column_gain": True}, {"remap_every": 2, "noise_ramp": 9}])
def test_parts_made_again_meet_their_own_mini_batch(recipe: dict[str, Any], kind: str, reentrant: bool) -> None:
    """Also where another has begun since, ranges followed or columns were scaled anew."""
    found = []
    for again in (None, lambda layer, x: checkpoint(layer, x, use_reentrant=reentrant)):
        torch.manual_seed(0)
        trained = prepare_hwa(Parts(kind), "analog-fabric", {"range_batches": 3} | recipe).train()
        trained.again = again or trained.again
        x = torch.randn(4, 3, 6, requires_grad=True)
        torch.manual_seed(1)
        for _ in range(3):
            (trained(x).square().sum() + trained(2 * x).square().sum()).backward()
        assert trained.hwa.batches.number == 6
        found.append([x.grad, *(p.grad for p in trained.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("within", [True, False])  # whether the backward pass comes within the next mini-batch
def test_a_network_made_again_knows_where_its_mini_batch_began(within: bool, reentrant: bool) -> None:
    """Before its call, or with it: what is drawn between the two is drawn again."""

    class Dropped(Scored):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(nn.functional.dropout(x, 0.5))

    def run(call: Callable[[Any, Tensor], Tensor], begins: bool) -> list[Tensor | None]:
        torch.manual_seed(0)
        trained: Any = prepare_hwa(Dropped(), "analog-fabric", {"range_batches": 1}).train()
        x = torch.randn(9, 6, requires_grad=True)
        trained(x)
        with mini_batch(trained) if begins else nullcontext():
            y = call(trained, x)
        if within:
            with mini_batch(trained):
                (y + trained(x)).sum().backward()
        else:
            y.sum().backward()
        assert trained.hwa.batches.number == 2 + within
        return [x.grad, *(p.grad for p in trained.parameters())]

    for begins in (True, False):
        plain = run(lambda trained, x: trained(x), begins)
        again = run(lambda trained, x: checkpoint(trained, x, use_reentrant=reentrant), begins)
        assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_attention_is_made_again_though_its_inputs_are_detached_one_by_one() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.saves = False

        def forward(self, x: Tensor) -> Tensor:
            call: Any = partial(checkpoint, self.attention, use_reentrant=True) if self.saves else self.attention
            y: Tensor = call(x, x, x)[0]
            return y

    found = []
    for saves in (False, True):
        torch.manual_seed(0)
        trained = prepare_hwa(Attending(), "analog-fabric").train()
        trained.saves, x = saves, torch.randn(2, 5, 8, requires_grad=True)
        trained(x).square().sum().backward()
        found.append([x.grad, *(p.grad for p in trained.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_attention_to_detached_keys_is_another_network() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.attention(x, x.detach(), x.detach())[0]
            return y

    trained = prepare_hwa(Detached(), "analog-fabric").train()
    with pytest.raises(TrainingError, match="is called with three tensors"):
        trained(torch.randn(2, 5, 8))


def test_what_cannot_be_made_again_is_refused() -> None:
    trained, x = prepared(), torch.randn(9, 6, requires_grad=True)
    y = checkpoint(trained, x, use_reentrant=False, preserve_rng_state=False)
    with pytest.raises(TrainingError, match=r"'first' was called in a backward pass.*preserve_rng_state=True"):
        y.sum().backward()
    with mini_batch(trained):
        y = checkpoint(trained.first, x, use_reentrant=False)
    with torch.no_grad():
        trained.first.weight.mul_(2)
    trained(x)
    with pytest.raises(TrainingError, match=r"'first' is to be made again.*updated since"):
        y.sum().backward()


def one_step(trained: Any, optimiser: torch.optim.Optimizer, number: int) -> None:
    torch.manual_seed(number)
    optimiser.zero_grad()
    trained(torch.randn(30, 6)).square().sum(1).sub(1).square().mean().backward()
    optimiser.step()


@pytest.mark.parametrize("recipe", [{"clip": "column"}, {"remap_every": 3}, {"remap_every": 3, "column_gain": True}])
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_evaluation_leaves_training_as_it_was(recipe: dict[str, Any], guard: Any) -> None:
    found = []
    for evaluated in (False, True):
        torch.manual_seed(0)
        trained = prepare_hwa(two_layers(), "analog-fabric", CALM | recipe).train()
        optimiser = torch.optim.SGD(trained.parameters(), lr=0.1)
        for number in range(6):
            one_step(trained, optimiser, number)
            if evaluated:
                trained.eval()
                with guard():
                    trained(torch.randn(4, 6))
                trained.train()
        found.append(trained.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("recipe", [{"remap_every": 3}, {"remap_every": 3, "column_gain": True}])
def test_a_mini_batch_without_gradients_may_come_first(recipe: dict[str, Any]) -> None:
    trained = prepare_hwa(two_layers(), "analog-fabric", recipe).train()
    with torch.inference_mode():
        trained(torch.randn(4, 6))
    trained(torch.randn(4, 6)).sum().backward()
    with mini_batch(trained):
        with torch.inference_mode():
            trained(torch.randn(4, 6))
        trained(torch.randn(4, 6)).sum().backward()
    assert trained[0].weight.grad.isfinite().all()


@pytest.mark.parametrize("clip", ["column", "k-sigma"])
def test_a_fresh_network_goes_on_from_a_state_dict(clip: str) -> None:
    recipe = {"clip": clip, "remap_every": 3, "range_batches": 1, "noise_ramp": 6}

    def made() -> tuple[Any, torch.optim.Optimizer]:
        torch.manual_seed(0)
        trained = prepare_hwa(two_layers(), "analog-fabric", recipe).train()
        return trained, torch.optim.SGD(trained.parameters(), lr=0.3)

    one, of_one = made()
    for number in range(4):
        one_step(one, of_one, number)
    other, of_other = made()
    one_step(other, of_other, 9)  # what it had before is gone
    other.load_state_dict(one.state_dict())
    for number in range(4, 7):
        one_step(one, of_one, number)
        one_step(other, of_other, number)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert other.hwa.batches.number == 7
    one(torch.randn(4, 6))
    held = one[0].weight.detach().clone()
    for _ in range(3):  # what is there already is no update
        one.load_state_dict(copy.deepcopy(one.state_dict()))
        one(torch.randn(4, 6))
    assert torch.equal(one[0].weight, held)


def test_frozen_weights_stay_in_a_network_that_was_loaded() -> None:
    plain = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 4))
    nn.init.normal_(plain[0].weight)
    plain[0].requires_grad_(False)
    trained = prepare_hwa(plain, "analog-fabric").train()
    trained(torch.randn(9, 64))
    trained.load_state_dict(copy.deepcopy(trained.state_dict()))
    trained(torch.randn(9, 64))
    assert torch.equal(trained[0].weight, plain[0].weight)


def test_norms_are_frozen_in_a_network_that_was_loaded() -> None:
    plain = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    one, other = (prepare_hwa(plain, "analog-fabric", {"freeze_norms": 0.5}, steps=4).train() for _ in range(2))
    for _ in range(2):
        one(torch.randn(9, 6))
    assert one[1].training
    other.load_state_dict(one.state_dict())
    other(torch.randn(9, 6))
    assert not other[1].training


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_range_follows_a_mini_batch_once_however_often_it_is_called(calls: int) -> None:
    """The recurrence of Rasch et al. (2023), with 4 standard deviations: the mean over all mini-batches."""

    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return [self.layer(x) for _ in range(calls)][-1]  # type: ignore[no-any-return]

    x = torch.randn(200, 4)
    x = x / x.std(correction=0)
    trained = prepare_hwa(Repeated(), "analog-fabric", {"range_sigmas": 4.0}).train()
    for number in range(12):
        trained(x if number < 9 else 2 * x)
    with mini_batch(trained):
        trained.layer(3 * x)
    assert float(trained.layer.analog.input_range.detach()) == pytest.approx(4 * (9 + 3 * 2 + 3) / 13, rel=1e-5)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 6), (4, 6)),
    "linear on windows": (lambda: nn.Linear(6, 6), (4, 3, 6)),
    "several row blocks": (lambda: nn.Linear(600, 6), (4, 600)),
    "conv": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose1d(3, 4, 3), (2, 3, 6)),
    "lstm": (lambda: nn.LSTM(6, 5), (4, 2, 6)),
    "gru": (lambda: nn.GRU(6, 5, batch_first=True), (4, 2, 6)),
}


@pytest.mark.parametrize("recipe", [{}, {"column_gain": True}])
@pytest.mark.parametrize("name", LAYERS)
def test_an_operation_in_place_may_follow_a_layer(name: str, recipe: dict[str, Any]) -> None:
    class Followed(nn.Module):
        def __init__(self, layer: nn.Module, in_place: bool) -> None:
            super().__init__()
            self.layer, self.act = layer, nn.ReLU(inplace=in_place)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            z: Tensor = self.act(y if isinstance(y, Tensor) else y[0])
            return z

    make, shape = LAYERS[name]
    found = []
    for in_place in (False, True):
        torch.manual_seed(0)
        trained = prepare_hwa(Followed(make(), in_place), "analog-fabric", recipe).train()
        x = torch.randn(shape, requires_grad=True)
        for _ in range(2):
            trained(x).square().sum().backward()
        found.append([x.grad, *(p.grad for p in trained.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_numbers_that_are_none_go_through_both_ways() -> None:
    """NaN weights give NaN outputs, as torch's own, and no error of an index."""
    for dtype in (torch.float32, torch.float64):
        trained = prepare_hwa(nn.Linear(6, 3).to(dtype), "analog-fabric", CALM).train()
        with torch.no_grad():
            trained.weight[1, 2] = torch.nan
        assert trained(torch.randn(4, 6, dtype=dtype))[:, 1].isnan().all()


QUIET_CHIP = [
    *(f"nonidealities.mvm.{name}=0" for name in ("sigma_out", "sigma_w", "ir_drop")),
    *(f"nonidealities.device.{name}=0" for name in ("programming_noise", "drift", "accumulated_read_noise")),
]


@pytest.mark.parametrize("off", [[], ["tile.dac.bits=off", "tile.adc.bits=off"]])
def test_learned_bounds_are_the_scales_of_the_compiled_network(off: list[str]) -> None:
    chip = aimc.load_chip("analog-fabric", QUIET_CHIP + off)
    torch.manual_seed(0)
    trained = prepare_hwa(two_layers(), chip, {"clip": "learned", "range_batches": 2}).train()
    x = torch.randn(64, 6)
    trained(x)
    with torch.no_grad():
        trained[0].analog.column_bound.mul_(1.3)
        trained[2].analog.column_bound.mul_(0.8)
    trained(x)
    compiled = aimc.compile(trained.eval(), chip, (x[:1],)).deploy(precision="exact")
    torch.testing.assert_close(trained(x), compiled(x, time_s=0.0), rtol=1e-5, atol=1e-6)

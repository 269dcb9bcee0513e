"""Every kind of layer: without effects it is torch's own, values and gradients; on a chip, the compiled network."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trained_networks import NETWORKS, QUIET

import aimc_compiler as aimc
from aimc_compiler.errors import TrainingError
from aimc_compiler.training import on_chip, prepare_hwa


@pytest.mark.parametrize("name", NETWORKS)
def test_without_effects_a_layer_is_torchs_own(name: str) -> None:
    torch.manual_seed(0)
    model, x = NETWORKS[name]()
    trained = prepare_hwa(model, "analog-fabric", QUIET, example_inputs=x).train()
    model.train()
    running = {key: value for key, value in model.state_dict().items() if "running" in key}
    trained(*x)  # the range of a loop follows when the mini-batch ends
    trained.load_state_dict(running, strict=False)
    y, expected = trained(*x), model(*x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(expected)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = {key: parameter.grad for key, parameter in trained.named_parameters()}
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[key], parameter.grad, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize("rounds", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_on_a_chip_it_is_the_compiled_network(name: str, rounds: bool) -> None:
    torch.manual_seed(0)
    model, x = NETWORKS[name]()
    chip = aimc.load_chip("analog-fabric", [] if rounds else ["tile.dac.bits=off", "tile.adc.bits=off"])
    trained = prepare_hwa(model, chip, example_inputs=x).train()
    for _ in range(3):
        trained(*x)
    trained.eval()
    compiled = aimc.compile(trained, chip, tuple(part[:1] for part in x))
    expected = compiled.deploy(seed=3, precision="exact")(*x, time_s=3600.0)
    with on_chip(trained, seed=3, time_s=3600.0), torch.no_grad():
        y = trained(*x)
    normed = any(isinstance(module, nn.BatchNorm2d | nn.LayerNorm) for module in model.modules())
    if not normed:
        assert torch.equal(y, expected)
        return
    # A norm rounds elsewhere, by a unit of the last place; a converter may then give the code beside.
    apart = (y - expected).abs() > 1e-5 * expected.abs().max()
    assert float(apart.double().mean()) <= (0.02 if rounds else 0.0)


class TimeFirst(nn.Module):
    """Samples along the second dimension, as torch's recurrent layers and attention have them."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.inner, self.body, self.head = nn.Linear(8, 16), body, nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        y = self.body(x, x[:3], x[:3]) if isinstance(self.body, nn.MultiheadAttention) else self.body(x)
        outputs: Tensor = self.head(y[0])
        return outputs


@pytest.mark.parametrize("body", [nn.LSTM(16, 16), nn.GRU(16, 16, 2), nn.MultiheadAttention(16, 4)])
@pytest.mark.parametrize("samples", [6, 10])
def test_samples_may_lie_along_another_dimension(body: nn.Module, samples: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, samples, 8)
    network = TimeFirst(body)
    trained = prepare_hwa(network, "analog-fabric", example_inputs=(x[:, :2],), batch_dim=1).train()
    for _ in range(3):
        trained(x)
    compiled = aimc.compile(trained.eval(), "analog-fabric", (x[:, :1],), batch_dim=1)
    expected = compiled.deploy(seed=3, precision="exact")(x, time_s=3600.0)
    with on_chip(trained, seed=3, time_s=3600.0), torch.no_grad():
        assert torch.equal(torch.cat([trained(part) for part in x.split(samples // 2, 1)], 1), expected)


class Tied(nn.Module):
    """An embedding whose weight is that of the head, and samples that lie along the second dimension within."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner, self.head = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.inner(self.embedding(x).transpose(0, 1))).transpose(0, 1)
        outputs: Tensor = self.head(y)
        return outputs


TIED: dict[str, Any] = {
    "embedding": lambda: (Tied(), torch.arange(35).reshape(5, 7) % 20),
    "layers": lambda: (NETWORKS["shared"]()[0], torch.randn(5, 6)),
    "both ways": lambda: (NETWORKS["one weight both ways"]()[0], torch.randn(5, 3, 6, 6)),
    "two paths": lambda: (NETWORKS["module at two paths"]()[0], torch.randn(5, 6)),
}


@pytest.mark.parametrize("recipe", [{"column_gain": True}, {"clip": "learned"}, {}])
@pytest.mark.parametrize("name", TIED)
def test_what_is_learned_for_tied_weights_is_what_is_compiled(name: str, recipe: dict[str, Any]) -> None:
    """One matrix has one set of gains and bounds; other uses of its weight keep it as it is."""
    torch.manual_seed(0)
    model, x = TIED[name]()
    trained = prepare_hwa(model, "analog-fabric", recipe).train()
    trained(x)
    for parameter in {id(each): each for each in trained.parameters()}.values():
        with torch.no_grad():
            if parameter.dim() == 3 and recipe:  # gains, bounds
                parameter.mul_(torch.rand_like(parameter) + 0.3)
    trained(x)
    trained.eval()
    compiled = aimc.compile(trained, "analog-fabric", (x[:1],))
    expected = compiled.deploy(seed=3, precision="exact")(x, time_s=3600.0)
    with on_chip(trained, seed=3, time_s=3600.0), torch.no_grad():
        assert torch.equal(trained(x), expected)
    plain, _ = trained.__aimc_export__()
    again = prepare_hwa(plain, "analog-fabric", {})
    assert type(again.eval()(x)) is Tensor


@pytest.mark.parametrize("mode", [True, False])
def test_samples_are_counted_in_either_mode(mode: bool) -> None:
    torch.manual_seed(0)
    trained, x = prepare_hwa(nn.Linear(8, 5), "analog-fabric").train(mode), torch.randn(6, 8)
    with on_chip(trained, seed=3), torch.no_grad():
        together = trained(x)
    with on_chip(trained, seed=3), torch.no_grad():
        apart = torch.cat([trained(part) for part in x.split(2)])
    assert torch.equal(together, apart)


def test_every_reading_of_a_chip_counts_on() -> None:
    model, x = NETWORKS["linear"]()
    trained = prepare_hwa(model, "analog-fabric").train()
    trained(*x)
    trained.eval()
    with on_chip(trained, seed=1) as clock, torch.no_grad():
        first, second = trained(*x), trained(*x)
        assert clock.first_sample == 12
    assert not torch.equal(first, second)
    with on_chip(trained, seed=1), torch.no_grad():
        assert torch.equal(trained(*x), first)


def test_evaluation_without_a_chip_has_no_noise() -> None:
    model, x = NETWORKS["convolutions"]()
    trained = prepare_hwa(model, "analog-fabric").train()
    trained(*x)
    trained.eval()
    with torch.no_grad():
        assert torch.equal(trained(*x), trained(*x))
        converted, plain = trained(*x), model.eval()(*x)
    assert not torch.allclose(converted, plain, rtol=1e-4)


def test_torchs_fused_encoder_does_not_read_past_the_tiles() -> None:
    model, x = NETWORKS["encoder"]()
    model.eval()
    trained = prepare_hwa(model, "analog-fabric", {"range_batches": 1}).train()
    trained(*x)
    trained.eval()
    with torch.inference_mode(), on_chip(trained, seed=0):
        one = trained(*x)
    with torch.inference_mode(), on_chip(trained, seed=1):
        assert not torch.equal(one, trained(*x))


def test_an_attention_that_is_called_otherwise_is_refused() -> None:
    model, x = NETWORKS["attention"]()
    trained = prepare_hwa(model, "analog-fabric")
    with pytest.raises(TrainingError, match="give prepare_hwa example_inputs"):
        trained(*x)


def test_packed_sequences_are_refused() -> None:
    trained = prepare_hwa(nn.LSTM(4, 3), "analog-fabric")
    packed: Any = nn.utils.rnn.pack_padded_sequence(torch.zeros(3, 2, 4), torch.tensor([3, 2]))
    with pytest.raises(TrainingError, match="pad the sequences"):
        trained(packed)


def test_initial_states_and_one_sequence_are_torchs_own() -> None:
    torch.manual_seed(0)
    plain = nn.LSTM(4, 3, 2, bidirectional=True)
    trained = prepare_hwa(plain, "analog-fabric", QUIET).train()
    x, states = torch.randn(5, 2, 4), (torch.randn(4, 2, 3), torch.randn(4, 2, 3))
    trained(x, states)
    for given in ((x, states), (x[:, 0], (states[0][:, 0], states[1][:, 0]))):
        ours, theirs = trained(*given), plain(*given)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masked", ["padding", "additive", "causal"])
@pytest.mark.parametrize("weights", [True, False])
def test_masks_are_torchs_own(masked: str, weights: bool) -> None:
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(8, 2, batch_first=True)
    trained = prepare_hwa(copy.deepcopy(plain), "analog-fabric", QUIET).train()
    x = torch.randn(3, 5, 8)
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[:, 3:] = True
    options: dict[str, Any] = {
        "padding": {"key_padding_mask": padding},
        "additive": {"attn_mask": torch.randn(6, 5, 5), "average_attn_weights": False},
        "causal": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1)},
    }[masked]
    trained(x, x, x, need_weights=weights, **options)
    ours = trained(x, x, x, need_weights=weights, **options)
    theirs = plain(x, x, x, need_weights=weights, **options)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

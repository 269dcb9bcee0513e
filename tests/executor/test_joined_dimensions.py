"""Samples that take turns along a dimension that a network joined: time and batch, time first."""

import torch
from torch import Tensor, nn

import aimc_compiler as aimc


class TimeFirst(nn.Module):
    """(batch, time, 6) to (time, batch, 6) to (time * batch, 6), through a layer, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.transpose(0, 1).flatten(0, 1))
        return torch.unflatten(y, 0, (x.shape[1], -1)).transpose(0, 1)


def outputs(model: nn.Module, x: Tensor, parts: int) -> Tensor:
    """Of one chip, on x in batches."""
    compiled = aimc.compile(model.eval(), "analog-fabric", (x[:1],), calibration=[x])
    device = compiled.deploy(seed=1, precision="exact")
    return torch.cat([device(part, time_s=60.0) for part in x.chunk(parts)])


def test_noise_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 5, 6)
    model = TimeFirst()
    whole = outputs(model, x, 1)
    assert torch.equal(whole, outputs(model, x, 3))
    assert torch.equal(whole, outputs(model, x, 6))


def test_noise_of_an_attention_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.attention(x, x, x, need_weights=False)[0]
            return y

    x = torch.randn(6, 5, 8)
    model = Attention()
    # Sums of attention itself may round otherwise for another batch, and move a code.
    apart = outputs(model, x, 1) != outputs(model, x, 3)
    assert float(apart.double().mean()) < 0.05


def test_the_order_is_in_the_artifact(tmp_path: object) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 5, 6)
    compiled = aimc.compile(TimeFirst().eval(), "analog-fabric", (x[:1],), calibration=[x])
    loaded = aimc.load(compiled.save(f"{tmp_path}/net.aimc"))
    one, other = (made.deploy(seed=1, precision="exact")(x) for made in (compiled, loaded))
    assert torch.equal(one, other)

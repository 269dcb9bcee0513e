"""Mixtures of experts in the spellings that are in use, for the tests: each maps (batch, tokens, 8) to the same."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, INNER, EXPERTS = 8, 12, 4
#: Two of four experts a token, which all of these networks take unless told otherwise.
TWO_OF_FOUR = {"experts": EXPERTS, "active": 2}


class Expert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(WIDTH, INNER, bias=False), nn.Linear(WIDTH, INNER, bias=False)
        self.w2 = nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Router(nn.Module):
    """Weights and numbers of the experts with the highest scores."""

    def __init__(self, active: int = 2) -> None:
        super().__init__()
        self.active, self.gate = active, nn.Linear(WIDTH, EXPERTS, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, taken = self.gate(x).topk(self.active, -1)
        return scores.softmax(-1), taken


class Masked(nn.Module):
    """Every expert on every token, weighed by zero where it was not taken."""

    def __init__(self, experts: Iterable[nn.Module] | None = None) -> None:
        super().__init__()
        self.router = Router()
        self.experts = nn.ModuleList((Expert() for _ in range(EXPERTS)) if experts is None else experts)

    def forward(self, x: Tensor) -> Tensor:
        weights, taken = self.router(x)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            y = y + (weights * (taken == number)).sum(-1, keepdim=True) * expert(x)
        return y


class SideBySide(Masked):
    """Outputs of all experts stacked, then summed with the router's weights."""

    def forward(self, x: Tensor) -> Tensor:
        weights, taken = self.router(x)
        dense = torch.zeros(*x.shape[:-1], EXPERTS).scatter(-1, taken, weights)
        return (torch.stack([expert(x) for expert in self.experts], -2) * dense[..., None]).sum(-2)


class Stacked(nn.Module):
    """One parameter of all experts' matrices, all of which multiply all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.router = Router()
        self.up, self.down = (nn.Parameter(torch.randn(EXPERTS, *s) / 3) for s in ((WIDTH, INNER), (INNER, WIDTH)))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, WIDTH)
        weights, taken = self.router(tokens)
        dense = torch.zeros(tokens.shape[0], EXPERTS).scatter(-1, taken, weights)
        inner = torch.bmm(tokens[None].expand(EXPERTS, -1, -1), self.up).relu()
        return (torch.bmm(inner, self.down) * dense.t()[..., None]).sum(0).reshape(x.shape)


class Chosen(Stacked):
    """The router's choice picks a matrix of the stack for each pair of token and choice."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, WIDTH)
        weights, taken = self.router(tokens)
        pairs, index = tokens.repeat_interleave(2, 0).unsqueeze(1), taken.reshape(-1)
        inner = torch.bmm(pairs, self.up[index]).relu()
        outputs = torch.bmm(inner, self.down[index]).squeeze(1) * weights.reshape(-1, 1)
        return outputs.reshape(-1, 2, WIDTH).sum(1).reshape(x.shape)


class Gathered(Masked):
    """Each expert on the tokens that took it, whose number depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, WIDTH)
        weights, taken = self.router(tokens)
        y = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            token, choice = torch.where(taken == number)
            y.index_add_(0, token, expert(tokens[token]) * weights[token, choice, None])
        return y.reshape(x.shape)


def built(network: type[nn.Module], *arguments: object) -> nn.Module:
    torch.manual_seed(0)
    return network(*arguments).eval()

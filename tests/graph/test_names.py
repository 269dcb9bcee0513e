"""Networks whose layers are called as something is in the modules that hold their graph."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import aimc_compiler as aimc


class Named(nn.Module):
    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = next(self.children())(x)
        return y


@pytest.mark.parametrize("name", ["code", "graph", "meta"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_may_have_any_name(name: str, nested: bool, tmp_path: Path) -> None:
    inner = nn.Sequential(OrderedDict([(name, nn.Linear(4, 3))])) if nested else nn.Linear(4, 3)
    model, x = Named(name, inner).eval(), torch.randn(2, 4)
    compiled = aimc.compile(model, "ideal", (x,), rules={name + "*": {"analog": True}})
    [op] = compiled.workload.matrix_ops
    assert op.name == (f"{name}.{name}" if nested else name)
    loaded = aimc.load(compiled.save(tmp_path / "net.aimc"))
    for each in (compiled, loaded):
        torch.testing.assert_close(each.deploy()(x), model(x))

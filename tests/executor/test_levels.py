"""Every network of the tests equals the float network at Graph, Mapping and Program (the ideal chip), in float64."""

import copy

import pytest
import torch
from networks import NETWORKS
from torch.utils import _pytree as pytree

import aimc_compiler as aimc
from aimc_compiler.executor import run_graph, run_mapping


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's, of the network itself
@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_equal_the_float_network(name: str, dtype: torch.dtype) -> None:
    model, args, kwargs = NETWORKS[name]()
    reference_model = copy.deepcopy(model).double()
    to = lambda tree, kind: pytree.tree_map(lambda leaf: leaf.to(kind) if leaf.is_floating_point() else leaf, tree)  # noqa: E731
    expected = pytree.tree_leaves(reference_model(*to(args, torch.float64), **to(kwargs, torch.float64)))
    model, args, kwargs = model.to(dtype), to(args, dtype), to(kwargs, dtype)
    chip = aimc.load_chip("ideal", overrides=("tile.rows=40", "tile.columns=24"))
    compiled = aimc.compile(model, chip, args, example_kwargs=kwargs)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for outputs in (
        run_graph(compiled.graph, *args, **kwargs),
        run_mapping(compiled.graph, compiled.workload, compiled.mapping, *args, **kwargs),
        compiled.deploy()(*args, **kwargs),
    ):
        leaves = pytree.tree_leaves(outputs)
        assert len(leaves) == len(expected)
        for found, wanted in zip(leaves, expected, strict=True):
            assert found.shape == wanted.shape
            assert (found.double() - wanted).norm() <= tolerance * wanted.norm()

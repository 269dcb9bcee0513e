"""The registry: every network by name, its example inputs, its line in the documentation, its place on the CLI."""

import re
from pathlib import Path

import pytest
import torch

from aimc_compiler.cli.reference import find_model
from aimc_compiler.errors import CaptureError
from aimc_compiler.zoo import NETWORKS

DOCS = Path(__file__).parents[2] / "docs" / "zoo.md"


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_example_inputs_are_one_sample_and_the_same_each_time(name: str) -> None:
    entry = NETWORKS[name]
    first, second = entry.example_inputs(), entry.example_inputs()
    for given, one, other in zip(entry.inputs, first, second, strict=True):
        assert tuple(one.shape) == given.shape
        assert one.shape[entry.batch_dim] == 1
        assert one.is_meta == entry.meta
        assert one.is_floating_point() == (given.below is None)
        assert entry.meta or torch.equal(one, other)
        if given.below is not None and not entry.meta:
            assert 0 <= int(one.min()) < int(one.max()) < given.below
    assert entry.paper


def test_example_inputs_follow_the_default_device() -> None:
    with torch.device("meta"):
        assert NETWORKS["resnet18"].example_inputs()[0].is_meta


def test_the_documentation_lists_every_network_with_its_size() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d ]+) \|$", DOCS.read_text(), flags=re.MULTILINE)
    assert {name: int(count.replace(" ", "")) for name, count in rows} == {
        name: entry.parameters for name, entry in NETWORKS.items()
    }


def test_the_command_line_finds_them() -> None:
    model, inputs = find_model("zoo:llama_tiny")
    with torch.no_grad():
        assert model(*inputs).shape == (1, 128, 256)


def test_a_name_that_is_almost_one() -> None:
    with pytest.raises(CaptureError, match="the zoo has no network 'resnet19': did you mean 'resnet18'"):
        find_model("zoo:resnet19")


def test_a_network_without_values_is_found_as_it_is() -> None:
    model, inputs = find_model("zoo:llama_70b")
    assert all(parameter.is_meta for parameter in model.parameters())
    assert all(each.is_meta for each in inputs)

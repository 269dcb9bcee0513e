"""Networks of the zoo through the compiler, at reduced sizes: captured whole, mapped, equal to the float network."""

import pytest
import torch
from small_networks import CONVOLUTIONAL, RECURRENT, SMALL
from torch import Tensor

import aimc_compiler as aimc
from aimc_compiler.graph import capture

#: Matrix operations: convolutions, linear layers and the two of a recurrent layer and direction, each use counted.
MATRICES = {
    "resnet18": 21,  # 17 convolutions, 3 projections, 1 linear layer
    "resnet50": 54,
    "wide_resnet50_2": 54,
    "resnet32": 32,
    "resnet32_projected": 34,
    "wide_resnet16": 16,
    "densenet121": 1 + 2 * 5 + 1 + 1,
    "mobilenet_v2": 1 + 2 + 4 * 3 + 2,
    "bert_base": 2 * 6 + 2,
    "bert_base_padded": 6 + 2,
    "albert_base_v2": 1 + 3 * 6 + 2,
    "gpt2": 2 * 4 + 1,
    "llama_tiny": 2 * 7 + 1,
    "llama_tied": 2 * 7 + 1,
    "mixtral_tiny": 2 * (4 + 1 + 4 * 3) + 1,
    "vit_b16": 1 + 2 * 6 + 1,
    "ptb_lstm": 2 * 2 + 1,
    "swb300_lstm": 2 * 2 * 2 + 2,
    "rnn_t": 2 * 2 * 2 + 2 + 3,
}


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_graph_is_the_network(name: str) -> None:
    model, inputs = SMALL[name]()
    graph = capture(model, inputs)
    assert graph.batch.dynamic, graph.batch.reason
    assert not graph.unpriced
    assert len(graph.matrix_modules()) == MATRICES[name]
    twice = tuple(torch.cat([each, each.flip(-1)]) for each in inputs)
    with torch.no_grad():
        assert difference(graph(*twice), model(*twice)) <= 1e-5


@pytest.mark.parametrize("name", sorted(CONVOLUTIONAL))
def test_the_ideal_chip_equals_the_float_network(name: str) -> None:
    model, inputs = SMALL[name]()
    compiled = aimc.compile(model, "ideal", inputs, calibration=[inputs])
    with torch.no_grad():
        assert difference(compiled.deploy(seed=0)(*inputs), model(*inputs)) <= 1e-5


@pytest.mark.parametrize(
    "name", ["bert_base_padded", "albert_base_v2", "gpt2", "llama_tied", "mixtral_tiny", "vit_b16"]
)
def test_the_ideal_chip_equals_the_transformers(name: str) -> None:
    model, inputs = SMALL[name]()
    compiled = aimc.compile(model, "ideal", inputs, calibration=[inputs])
    with torch.no_grad():
        assert difference(compiled.deploy(seed=0)(*inputs), model(*inputs)) <= 1e-5


def test_the_layer_that_albert_shares_is_stored_once() -> None:
    model, inputs = SMALL["albert_base_v2"]()
    compiled = aimc.compile(model, "ideal", inputs)
    # The mapping into the width, six matrices of the layer, pooler and head.
    assert len(compiled.workload.matrices) == 9


@pytest.mark.parametrize("name", sorted(RECURRENT))
def test_the_ideal_chip_equals_the_recurrent_networks(name: str) -> None:
    model, inputs = SMALL[name]()
    compiled = aimc.compile(model, "ideal", inputs, calibration=[inputs])
    with torch.no_grad():
        assert difference(compiled.deploy(seed=0)(*inputs), model(*inputs)) <= 1e-5


def test_a_network_without_values_is_planned() -> None:
    with torch.device("meta"):
        model, _ = SMALL["llama_tiny"]()
        tokens = torch.zeros(1, 12, dtype=torch.long)
    compiled = aimc.compile(model, "analog-fabric", (tokens,))
    real, inputs = SMALL["llama_tiny"]()
    assert compiled.timing.latency_s == aimc.compile(real, "analog-fabric", inputs).timing.latency_s

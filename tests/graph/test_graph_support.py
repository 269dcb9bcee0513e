"""What has a place: counts against the compiler's own, everything that has none, networks that capture refuses."""

import re
from math import prod

import pytest
import torch
import torch.nn.functional as F
from networks import NETWORKS
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.chip import ChipSpec
from aimc_compiler.errors import CaptureError, RuleError, UnsupportedOpError
from aimc_compiler.graph import Support, capture, lower, partition, support_of
from aimc_compiler.report import kind_rows, support_json, support_lines
from aimc_compiler.workload import DigitalOp


class Odd(nn.Module):
    """Two operations without a price, a recurrent layer, a product with a weight that is computed at run time."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.rnn(torch.special.bessel_j0(x))[0])
        weight = self.head.weight * y.sum()
        return torch.special.i0(F.linear(F.relu(y @ self.head.weight), weight))


class Mixed(nn.Module):
    """Normalises over its batch, which capture refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y - y.mean(0)


class Fixed(nn.Module):
    """Its batch cannot vary, and it has an operation without a price."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(torch.special.bessel_j0(x.reshape(2, 6)))
        return out


class Sharing(nn.Module):
    """One matrix meets a constant of the network and what is made of it with no sample in it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        shared: Tensor = self.layer(torch.zeros_like(x[:1]) + 1)
        return x + shared


@pytest.fixture(scope="module")
def chip() -> ChipSpec:
    return aimc.load_chip("hermes")


@pytest.mark.parametrize(
    "name", ["fashion_resnet", "inception", "tied", "sequence", "upsampling", "attention", "einsum"]
)
def test_counts_are_those_of_the_workload(name: str, chip: ChipSpec) -> None:
    model, args, kwargs = NETWORKS[name]()
    found = support_of(model, args, kwargs, chip=chip)
    graph = capture(model, args, kwargs)
    workload = lower(graph, partition(graph, (), chip))
    compiled = aimc.compile(model, chip, args, example_kwargs=kwargs)
    assert found.supported
    analog = {op.name: op for op in found.ops if op.place == "analog"}
    assert list(analog) == [op.name for op in workload.matrix_ops]
    for op in workload.matrix_ops:
        assert analog[op.name].macs == op.windows * workload.matrix(op.matrix).cells
    assert sum(op.weights for op in found.ops) == sum(matrix.cells for matrix in workload.matrices)
    assert sum(op.tiles for op in found.ops) == compiled.utilization.tiles_used
    priced = [op for op in workload.ops if isinstance(op, DigitalOp) and op.cost_class != "free"]
    digital = [op for op in found.ops if op.place == "digital" and op.cost_class != "free"]
    assert sorted(op.op for op in priced) == sorted(op.op for op in digital)
    products = sum(op.work for op in priced if op.cost_class == "activation_product")
    assert sum(op.macs for op in digital) == products


def test_all_without_a_place_is_listed() -> None:
    model, example = Odd().eval(), (torch.ones(1, 2, 4),)
    found = support_of(model, example)
    assert [op.op for op in found.unsupported] == ["special_bessel_j0", "linear", "special_i0"]
    assert not found.supported
    with pytest.raises(UnsupportedOpError) as refused:
        capture(model, example)
    for op in found.unsupported:
        assert op.origin.source.startswith("test_graph_support.py:")
        assert f"{op.origin}: {op.reason}" in str(refused.value)
    analog = [op.name for op in found.ops if op.place == "analog"]
    assert analog == ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "head", "head@2"]
    assert [op.op for op in found.ops if op.name == "rnn.cell_l0"] == ["rnn_tanh_cell"]
    text = "\n".join(support_lines(found))
    assert "unsupported: special_i0 at" in text
    assert "its weight or bias is computed from the input" in text
    assert "; 3 unsupported" in text


def test_a_batch_that_cannot_vary_is_one_sample() -> None:
    found = support_of(Fixed().eval(), (torch.ones(4, 3),))
    assert found.samples.startswith("the whole example is one sample: its batch cannot vary")
    assert [op.op for op in found.unsupported] == ["special_bessel_j0"]
    assert found.faults == ()
    assert next(op for op in found.ops if op.place == "analog").macs == 2 * 6 * 2


def test_what_else_stops_the_compiler_is_a_fault() -> None:
    found = support_of(Mixed().eval(), (torch.randn(2, 3),))
    assert not found.supported
    assert not found.unsupported
    assert "mixes the samples of a batch" in found.faults[0]
    assert support_of(Mixed().eval(), (torch.randn(2, 3),), batch_dim=None).supported


def test_a_matrix_that_no_sample_reaches_is_unsupported() -> None:
    model, args = Sharing().eval(), (torch.randn(1, 3),)
    found = support_of(model, args)
    graph = capture(model, args)
    assert str(graph)  # the compiler takes it; a chip cannot run it
    assert [op.name for op in found.unsupported] == ["layer"]
    assert "all samples of a batch share it" in found.unsupported[0].reason
    assert support_of(model, args, chip=aimc.load_chip("hermes"), rules={"layer": {"analog": False}}).supported


def test_the_chip_adds_tiles_and_prices(chip: ChipSpec) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 4), nn.Softmax(-1)).eval()
    example = (torch.zeros(1, 300),)
    assert [op.tiles for op in support_of(model, example, chip=chip).ops] == [2, 0]
    assert [op.tiles for op in support_of(model, example).ops] == [0, 0]
    few = aimc.load_chip("hermes", overrides=("tile.count=1", "network.shape=null"))
    found = support_of(model, example, chip=few)
    assert found.faults[0].startswith("the network needs 2 tiles of type 'tile', the chip has 1: keep matrices digital")
    assert support_of(model, example, chip=few, rules={"*": {"max_tiles": 1}}).supported
    prices = {key: value for key, value in chip.digital_units.cost_classes.items() if key != "softmax"}
    units = chip.digital_units.model_copy(update={"cost_classes": prices})
    poor = chip.model_copy(update={"digital_units": units})
    (op,) = support_of(model, example, chip=poor).unsupported
    assert op.op == "softmax"
    assert "add digital_units.cost_classes.softmax" in op.reason


def test_no_graph_and_rules_without_a_chip_are_errors() -> None:
    with pytest.raises(CaptureError, match="training mode"):
        support_of(nn.Linear(2, 2).train(), (torch.zeros(1, 2),))
    with pytest.raises(RuleError, match="give the chip as well"):
        support_of(nn.Linear(2, 2).eval(), (torch.zeros(1, 2),), rules="all-analog")


def test_shapes_suffice() -> None:
    with torch.device("meta"):
        model, example = nn.Sequential(nn.Linear(1000, 500), nn.ReLU()).eval(), (torch.zeros(1, 1000),)
    found = support_of(model, example)
    assert found.supported
    assert [(op.weights, op.macs) for op in found.ops] == [(500_000, 500_000), (0, 0)]


def test_report(chip: ChipSpec) -> None:
    model, args, kwargs = NETWORKS["sequence"]()
    found = support_of(model, args, kwargs, chip=chip, rules={"out": {"analog": False}})
    rows = kind_rows(found)
    assert [row.place for row in rows] == sorted((row.place for row in rows), key=("analog", "digital").index)
    assert rows[-1].op == "views"
    assert sum(row.count for row in rows) == len(found.ops)
    assert (rows[0].op, rows[0].count, rows[0].weights) == ("linear", 3, 3 * 8 * 8)
    assert ("linear", "digital", "activation_product") in {(row.op, row.place, row.cost_class) for row in rows}
    plain = support_json(found)
    assert plain["supported"]
    assert len(plain["ops"]) == len(found.ops)
    assert {op["reason"] for op in plain["ops"] if op["name"] == "out"} == {"rule 'out' says digital"}
    analog, products = 3 * 5 * 8 * 8, 2 * prod((5, 5, 8))
    share = 100 * analog / (analog + products + 5 * 8 * 4)
    assert f"3 operations analog, with {share:.1f} % of the multiply-accumulates" in support_lines(found)[0]


def test_no_operation_at_all() -> None:
    found: Support = support_of(nn.Identity().eval(), (torch.zeros(1, 2),))
    assert found.ops == ()
    assert re.match("Identity: 0 operations analog, with none of", support_lines(found)[0])

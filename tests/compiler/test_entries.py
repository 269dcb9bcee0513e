"""Several entries of one compiled network: the matrices they share, their programs, and what is refused."""

from typing import Any

import pytest
import torch
from entry_networks import Parts, encoder_decoder, generator, integers, numbers
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.errors import CaptureError, DataError, DoesNotFitError, RuleError
from aimc_compiler.zoo.bert import bert_base


@pytest.fixture(scope="module")
def compiled() -> aimc.CompiledModel:
    network, entries = encoder_decoder()
    return aimc.compile(network, "ideal", entries=entries)


def test_matrices_of_all_entries_are_mapped_once(compiled: aimc.CompiledModel) -> None:
    assert compiled.entries == ("encode", "decode")
    assert compiled.network == "EncoderDecoder"
    assert [piece.matrix for piece in compiled.mapping.pieces] == ["widen", "mix", "cross", "head"]
    encode, decode = compiled.entry("encode"), compiled.entry("decode")
    assert [op.matrix for op in encode.workload.analog_ops] == ["widen", "mix"]
    assert [op.matrix for op in decode.workload.analog_ops] == ["mix", "cross", "head"]
    assert encode.mapping.pieces is decode.mapping.pieces
    assert (encode.utilization.tiles_used, decode.utilization.tiles_used) == (2, 3)
    assert compiled.utilization.tiles_used == 4


def test_each_entry_has_its_program_on_the_shared_sites(compiled: aimc.CompiledModel) -> None:
    tiles: dict[str, set[str]] = {}
    for name in compiled.entries:
        tasks = [task for task in compiled.entry(name).program.tasks if task.kind == "mvm" and task.op == "mix"]
        held = compiled.entry(name).program.resources
        tiles[name] = {held[task.uses[0][0]].name for task in tasks}
    assert tiles == {"encode": {"tile 1"}, "decode": {"tile 1"}}
    alone, decode = (
        aimc.compile(encoder_decoder()[0], "ideal", entries={"decode": encoder_decoder()[1]["decode"]}),
        compiled.entry("decode"),
    )
    assert alone.timing.counts.mvms == decode.timing.counts.mvms == 3 * 3
    assert alone.program.resources != decode.program.resources  # its matrices stand elsewhere
    assert decode.timing.energy_by_component["adc"] == pytest.approx(alone.timing.energy_by_component["adc"])


def test_attributes_are_those_of_the_first_entry(compiled: aimc.CompiledModel) -> None:
    first = compiled.entry()
    assert first is compiled.entry("encode")
    assert compiled.graph is first.graph
    assert compiled.workload is first.workload
    assert compiled.program is first.program
    assert compiled.timing is first.timing


def test_every_entry_gives_what_its_method_gives(compiled: aimc.CompiledModel) -> None:
    network, _ = encoder_decoder()
    x, tokens = numbers(3, 4, 8, seed=7), integers(3, 3, below=10, seed=8)
    with torch.no_grad():
        states = network.encode(x)
        expected = network(x, tokens)["logits"]
    assert torch.allclose(compiled.float_outputs(x), states, atol=1e-6)
    device = compiled.deploy()
    found = device(tokens, states=device(x), entry="decode")["logits"]
    assert torch.allclose(found, expected, atol=1e-5)


def test_paths_are_those_of_the_network_whatever_is_called(compiled: aimc.CompiledModel) -> None:
    names = {name: list(compiled.entry(name).graph.matrix_modules()) for name in compiled.entries}
    assert names == {"encode": ["widen", "mix"], "decode": ["mix", "cross", "head"]}
    modules = [compiled.entry(name).graph.matrix_modules()["mix"] for name in compiled.entries]
    assert modules[0].weight is modules[1].weight
    assert modules[0].parameter == "mix.weight"
    with pytest.raises(DataError, match=r"EncoderDecoder:decode: called with 1 positional inputs and keywords \[\]"):
        compiled.float_outputs(numbers(1, 4, 8), entry="decode")


def test_one_named_entry_is_what_it_is_without_a_name() -> None:
    network, x = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).eval(), numbers(6, 5)
    plain = aimc.compile(network, "analog-fabric", (x[:1],), calibration=[x])
    named = aimc.compile(network, "analog-fabric", entries={"only": (x[:1],)}, calibration={"only": [x]})
    assert plain.entries == ("main",)
    assert (named.mapping, named.program, named.ranges) == (plain.mapping, plain.program, plain.ranges)
    assert torch.equal(named.deploy()(x, entry="only"), plain.deploy()(x))


def test_two_lengths_of_a_transformer_share_its_tiles() -> None:
    network = bert_base(vocabulary=50, positions=20, width=16, heads=2, layers=1, inner=24)
    entries = {f"length-{count}": (integers(1, count, below=50),) for count in (6, 12)}
    compiled = aimc.compile(network, "ideal", entries=entries)
    alone = aimc.compile(network, "ideal", entries["length-12"])
    assert compiled.utilization == alone.utilization
    short, long = (compiled.entry(name) for name in compiled.entries)
    assert long.program.tasks == alone.program.tasks
    assert short.timing.latency_s < long.timing.latency_s
    assert short.timing.counts.mvms < long.timing.counts.mvms
    device = compiled.deploy()
    for name, (tokens,) in entries.items():
        with torch.no_grad():
            assert torch.allclose(device(tokens, entry=name), network(tokens), atol=1e-5)


def test_uses_of_one_name_and_computed_weights_are_told_apart() -> None:
    """Both parts of a packed weight are called `packed`: in each entry the second is the second."""
    network, x = Parts().eval(), numbers(1, 3, 6)
    call = {name: aimc.Entry(inputs=(x,), method=name) for name in ("last", "all")}
    compiled = aimc.compile(network, "ideal", entries=call)
    ops = {name: {op.name: op.matrix for op in compiled.entry(name).workload.matrix_ops} for name in call}
    assert ops["last"]["packed"] == "packed"
    assert ops["all"]["packed"] == "packed"
    assert ops["all"]["packed@2"] == "packed@2"
    assert {op: matrix for op, matrix in ops["all"].items() if op in ops["last"]} == ops["last"]
    # packed twice, front twice, W_ih and W_hh of the LSTM
    assert len(compiled.utilization.layers) == 6
    device = compiled.deploy()
    with torch.no_grad():
        for name in call:
            assert torch.allclose(device(x, entry=name), getattr(network, name)(x), atol=1e-5)


def test_rules_place_the_matrices_of_all_entries() -> None:
    network, entries = encoder_decoder()
    rules: dict[str, Any] = {"cross": {"analog": False}, "widen": {"analog": False}}
    compiled = aimc.compile(network, "ideal", entries=entries, rules=rules)
    assert [piece.matrix for piece in compiled.mapping.pieces] == ["mix", "head"]
    with pytest.raises(RuleError, match="rule 'crass' matches no matrix operation; did you mean 'cross'"):
        aimc.compile(network, "ideal", entries=entries, rules={"crass": {"analog": False}})
    budget = aimc.compile(network, "ideal", entries=entries, rules={"*": {"max_tiles": 1}})
    # mix multiplies in both: its work counts twice, 7 windows of 144 products
    assert [piece.matrix for piece in budget.mapping.pieces] == ["mix"]
    preset = aimc.compile(network, "ideal", entries=entries, rules="transformer")
    assert [piece.matrix for piece in preset.mapping.pieces] == ["widen", "mix", "cross"]


class Tied(nn.Module):
    """One weight under two module paths, each in a method of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)
        self.right.weight = self.left.weight

    def go_left(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x)

    def go_right(self, x: torch.Tensor) -> torch.Tensor:
        return self.right(x)


def test_a_matrix_that_entries_would_put_in_two_places_is_refused() -> None:
    entries = {name: aimc.Entry(inputs=(numbers(1, 4),), method=f"go_{name}") for name in ("left", "right")}
    with pytest.raises(RuleError, match=r"'left' of entry 'left' and 'right' of entry 'right' use one matrix"):
        aimc.compile(Tied().eval(), "ideal", entries=entries, rules={"right": {"analog": False}})
    compiled = aimc.compile(Tied().eval(), "ideal", entries=entries)
    assert [op.matrix for op in compiled.entry("right").workload.matrix_ops] == ["left"]
    assert compiled.utilization.tiles_used == 1


def test_a_network_that_does_not_fit_says_so_of_all_entries() -> None:
    network, entries = encoder_decoder()
    chip = aimc.load_chip("ideal", overrides=("tile.count=3",))
    with pytest.raises(DoesNotFitError, match=r"EncoderDecoder does not fit ideal: it needs 4 tiles.*has 3"):
        aimc.compile(network, chip, entries=entries)
    assert aimc.compile(network, chip, entries={"decode": entries["decode"]}).utilization.tiles_used == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"entries": {}}, "entries is empty: give a mapping from names to examples, as in {'prefill': "),
        ({"entries": [("a", (1,))]}, "entries is a list: give a mapping from names"),
        ({"entries": {"": (1,)}}, "'' is no name of an entry: give letters, digits, _ and -"),
        ({"entries": {"a/b": (1,)}}, "'a/b' is no name of an entry"),
        ({"entries": {3: (1,)}}, "3 is no name of an entry"),
        ({"entries": {"a": torch.zeros(1, 3)}}, r"entry 'a' is a Tensor: give the inputs of one call as a tuple"),
        ({"entries": {"a": None}}, "entry 'a' is a NoneType: give the inputs of one call as a tuple"),
        ({"entries": {"a": aimc.Entry(inputs=torch.zeros(1, 3))}}, "entry 'a' has inputs Tensor and method 'forward'"),
        ({"entries": {"a": (1,)}, "example_inputs": (1,)}, "example_inputs and entries both say how"),
        ({}, r"example_inputs is missing: give the inputs of one call as a tuple"),
        (
            {"entries": {"a": (torch.zeros(1, 4),), "b": aimc.Entry(method="go_lift")}},
            "entry 'b': Tied has no method 'go_lift': did you mean 'go_left'",
        ),
        (
            {"entries": {"a": aimc.Entry(method="train_it")}},
            "Tied has no method 'train_it': it has forward, go_left, go_right",
        ),
    ],
)
def test_what_is_no_entry_is_refused(arguments: dict[str, Any], message: str) -> None:
    class Called(Tied):
        forward = Tied.go_left

    Called.__name__ = "Tied"
    with pytest.raises(CaptureError, match=message):
        aimc.compile(Called().eval(), "ideal", **arguments)


def test_an_unknown_entry_is_refused(compiled: aimc.CompiledModel) -> None:
    with pytest.raises(DataError, match="this program has no entry 'decod': did you mean 'decode'"):
        compiled.entry("decod")
    with pytest.raises(DataError, match="no entry 'step': there is 'encode', 'decode'"):
        compiled.deploy()(numbers(1, 4, 8), entry="step")


def test_shapes_without_values() -> None:
    with torch.device("meta"):
        network, entries = generator()
    without = aimc.compile(network, "analog-fabric", entries=entries)
    with_values = aimc.compile(generator()[0], "analog-fabric", entries=generator()[1])
    for name in ("prefill", "step"):
        assert without.entry(name).program == with_values.entry(name).program
    with pytest.raises(CaptureError, match="GeneratingLlama was compiled on the meta device"):
        without.deploy()

"""Rules by name, by size and by a budget of tiles; rules from a file; and their mistakes."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from chips_by_hand import chip_by_hand, tile_by_hand
from networks import NETWORKS
from torch import Tensor, nn

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.errors import RuleError
from aimc_compiler.graph import Graph, capture, load_rules, partition
from aimc_compiler.graph.matrix_cost import matrix_costs


@pytest.fixture(scope="module")
def graph() -> Graph:
    """10 matrices: stem, three stages of 2 or 3 convolutions, head."""
    return capture(*NETWORKS["fashion_resnet"]())


@pytest.fixture(scope="module")
def chip() -> ChipSpec:
    return chip_by_hand(tiles={"small": tile_by_hand(rows=32, columns=8), "big": tile_by_hand()}, tile=None)


class Words(nn.Module):
    """An embedding whose weight is the last layer's too, a convolution over the sequence, a linear layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.patch = nn.Embedding(11, 6), nn.Conv1d(6, 6, 3, padding=1)
        self.mix, self.head = nn.Linear(6, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.patch(self.embed(tokens).transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.head(self.mix(torch.relu(self.mix(x))))
        return out


def places(graph: Graph, rules: Any, chip: ChipSpec) -> dict[str, bool]:
    return {each.op: each.analog for each in partition(graph, rules, chip).assignments}


def test_costs_count_every_multiplication(graph: Graph) -> None:
    """Against sums over windows by hand: stem 28 x 28 windows of 9 x 4, last stage 7 x 7 windows."""
    costs = matrix_costs(graph)
    assert (costs["stem.0"].matrix.cells, costs["stem.0"].macs) == (36, 28 * 28 * 36)
    assert costs["stages.2.second.0"].macs == 7 * 7 * 72 * 8
    assert costs["head"].macs == 80
    tied = matrix_costs(capture(*NETWORKS["tied"]()))
    assert [cost.path for cost in tied.values()][:2] == ["first", "first"]
    grouped = matrix_costs(capture(*NETWORKS["odd_convolutions"]()))["dilated"]
    assert grouped.matrix.groups == 4
    assert grouped.matrix.cells == 12 * 2 * 9


def test_first_and_last_stay_digital(graph: Graph, chip: ChipSpec) -> None:
    result = partition(graph, "first-last-digital", chip)
    assert [each.op for each in result.assignments if not each.analog] == ["stem.0", "head"]
    assert result.of("stem.0").reason == "preset 'first-last-digital' says digital: the first convolution"
    assert result.of("head").reason == "preset 'first-last-digital' says digital: the last linear layer"
    assert result.of("stages.1.shortcut.0").reason.startswith("preset 'first-last-digital' says analog: between")


def test_all_analog_says_so(graph: Graph, chip: ChipSpec) -> None:
    assert {each.reason for each in partition(graph, "all-analog", chip).assignments} == {
        "preset 'all-analog' says analog: every matrix"
    }


def test_transformers_keep_embeddings_digital(chip: ChipSpec) -> None:
    graph = capture(Words().eval(), (torch.zeros(1, 4, dtype=torch.int64),))
    result = partition(graph, "transformer", chip)
    assert places(graph, "transformer", chip) == {"patch": False, "mix": True, "mix@2": True, "head": False}
    assert result.of("head").reason == "preset 'transformer' says digital: shares the weight of an embedding"
    assert result.of("mix@2").reason == "preset 'transformer' says analog: a linear layer"


def test_presets_keep_all_uses_of_a_matrix_together(chip: ChipSpec) -> None:
    """The last linear layer of this network is the second use of its matrix."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 8)
    model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.Flatten(), layer, nn.ReLU(), layer).eval()
    graph = capture(model, (torch.zeros(1, 2, 4),))
    assert places(graph, "first-last-digital", chip) == {"0": False, "2": False, "4": False}


def test_earlier_rules_are_exceptions_to_a_preset(graph: Graph, chip: ChipSpec) -> None:
    result = partition(graph, [("stem.*", {"analog": True}), "first-last-digital"], chip)
    assert result.of("stem.0").reason == "rule 'stem.*' says analog"
    assert not result.of("head").analog
    with pytest.raises(RuleError, match=r"preset 'all-analog' never applies: 'stem.0' and all else"):
        partition(graph, [("*", {"analog": False}), "all-analog"], chip)


def test_small_matrices_stay_digital(graph: Graph, chip: ChipSpec) -> None:
    result = partition(graph, {"*": {"min_cells": 100, "reason": "not worth a tile"}}, chip)
    small = {name for name, cost in matrix_costs(graph).items() if cost.matrix.cells < 100}
    assert small == {"stem.0", "stages.1.shortcut.0", "stages.2.shortcut.0", "head"}
    assert {each.op for each in result.assignments if not each.analog} == small
    assert result.of("head").reason == (
        "rule '*' says digital: not worth a tile; 80 cells are fewer than min_cells 100"
    )
    assert result.of("stages.0.first.0").reason == "rule '*' says analog: not worth a tile"
    by_rows = partition(graph, {"*": {"min_rows": 9}}, chip)
    assert by_rows.of("stem.0").analog
    assert by_rows.of("head").reason == "rule '*' says digital: 8 rows are fewer than min_rows 9"


def test_a_budget_goes_to_the_most_work_a_tile(graph: Graph, chip: ChipSpec) -> None:
    """Whatever the budget: no digital matrix that would fit in what is left has more work a tile than an analog one."""
    tile, costs = chip.tile_types["small"], matrix_costs(graph)
    worth = {name: cost.macs / cost.tiles(tile) for name, cost in costs.items()}
    for budget in (1, 2, 3, 5, 8, 13, 100):
        taken = {name for name, analog in places(graph, {"*": {"max_tiles": budget}}, chip).items() if analog}
        used = sum(costs[name].tiles(tile) for name in taken)
        assert used <= budget
        for name in set(costs) - taken:
            better = [other for other in taken if worth[other] >= worth[name]]
            assert costs[name].tiles(tile) > budget - sum(costs[other].tiles(tile) for other in better)
    assert taken == set(costs)
    reasons = [each.reason for each in partition(graph, {"*": {"max_tiles": 3}}, chip).assignments]
    assert "rule '*' says analog: takes 1 tile of max_tiles 3 (28,224 MACs a tile)" in reasons
    assert "rule '*' says digital: needs 2 tiles, 0 left of max_tiles 3 (40 MACs a tile)" in reasons


def test_a_budget_counts_uses_of_one_matrix_once(chip: ChipSpec) -> None:
    """Used three times, the shared 6 x 6 matrix has more work than the 6 x 4 one, in the one tile there is."""
    tied = capture(*NETWORKS["tied"]())
    result = partition(tied, {"*": {"max_tiles": 1}}, chip)
    assert [each.analog for each in result.assignments] == [True, True, True, False, False]
    assert "(108 MACs a tile)" in result.of("second").reason


def test_a_budget_is_of_the_rule_and_its_tile_type(graph: Graph, chip: ChipSpec) -> None:
    """ "small" tiles hold 32 rows: the 54 rows of the first take two of them, 72 rows three."""
    rules = [("stages.2.*", {"max_tiles": 2, "tile_type": "small"}), ("*", {"max_tiles": 1, "tile_type": "big"})]
    result = partition(graph, rules, chip)
    assert [each.op for each in result.assignments if each.analog] == ["stages.0.first.0", "stages.2.first.0"]
    assert result.of("stages.2.second.0").reason.startswith("rule 'stages.2.*' says digital: needs 3 tiles, ")


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ("first-last", "there is no preset of rules 'first-last'; did you mean 'first-last-digital'?"),
        (["all-analog", "first-last-digital"], "preset 'first-last-digital' never applies: 'stem.0' and all else"),
        ({"*": {"min_cell": 3}}, "rule '*': there is no setting 'min_cell'; did you mean 'min_cells'?"),
        ({"*": {"min_cells": True}}, "rule '*': min_cells is True, a bool: give a int"),
        ({"*": {"min_rows": 2.5}}, "rule '*': min_rows is 2.5, a float: give a int"),
        ({"*": {"experts": 4, "active": 0}}, "rule '*': active is 0: give 1 or more experts"),
        ({"*": {"max_tiles": 0}}, "rule '*': max_tiles is 0: give 1 or more (to keep all digital: analog: false)"),
        ({"*": {"analog": False, "max_tiles": 3}}, "rule '*': analog is False, so max_tiles chooses nothing"),
        ([{"head": {"min_cells": 1}}, "all-analogue"], "there is no preset of rules 'all-analogue'; did you mean"),
        ([3], "3 is no rule: write (pattern, settings), as in ('head', {'analog': False}), or the name of a preset"),
    ],
)
def test_mistakes_are_errors(graph: Graph, chip: ChipSpec, rules: Any, text: str) -> None:
    with pytest.raises(RuleError, match=re.escape(text)):
        partition(graph, rules, chip)


def test_presets_refuse_networks_of_another_kind(chip: ChipSpec) -> None:
    mlp = capture(*NETWORKS["mlp"]())
    with pytest.raises(RuleError, match=r"'first-last-digital' keeps .* but Sequential has no convolution"):
        partition(mlp, "first-last-digital", chip)
    with pytest.raises(RuleError, match="'transformer' puts linear layers on tiles, but Sequential has none"):
        partition(capture(*NETWORKS["conv1d"]()), "transformer", chip)


def test_rules_from_a_file(graph: Graph, chip: ChipSpec, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("- 'stages.*': {min_cells: 100}\n- first-last-digital\n")
    assert partition(graph, load_rules(file), chip) == partition(
        graph, [("stages.*", {"min_cells": 100}), "first-last-digital"], chip
    )
    file.write_text("head: {analog: false}\n'*': {tile_type: big}\n")
    result = partition(graph, load_rules(file), chip)
    assert (result.of("head").analog, result.of("stem.0").tile_type) == (False, "big")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: write rules"),
        ("3\n", "holds 3, no rules"),
        ("head: {analog: false}\nhead: {analog: true}\n", "rules.yaml:2:1: "),
        ("head: [\n", "rules are a YAML mapping"),
    ],
)
def test_files_that_hold_no_rules(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    with pytest.raises(RuleError, match=re.escape(message)):
        load_rules(file)
    with pytest.raises(RuleError, match=r"absent\.yaml cannot be read"):
        load_rules(tmp_path / "absent.yaml")

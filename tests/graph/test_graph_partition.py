"""Rules: first match wins, reasons in words, and every mistake is an error that says what to change."""

import re
from typing import Any

import pytest
from chips_by_hand import chip_by_hand, tile_by_hand
from networks import NETWORKS

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.errors import RuleError
from aimc_compiler.graph import Graph, capture, partition


@pytest.fixture(scope="module")
def graph() -> Graph:
    return capture(*NETWORKS["fashion_resnet"]())


@pytest.fixture(scope="module")
def chip() -> ChipSpec:
    return chip_by_hand(tiles={"small": tile_by_hand(rows=64, columns=64), "big": tile_by_hand()}, tile=None)


def test_without_rules_every_matrix_is_analog(graph: Graph, chip: ChipSpec) -> None:
    result = partition(graph, {}, chip)
    assert [assignment.op for assignment in result.assignments] == list(graph.matrix_modules())
    assert {(a.analog, a.tile_type, a.reason) for a in result.assignments} == {
        (True, "small", "default: every matrix is analog")
    }


def test_first_match_wins(graph: Graph, chip: ChipSpec) -> None:
    rules = [("stages.0.*", {"analog": False}), ("stages.*", {"tile_type": "big"}), ("head", {"analog": True})]
    result = partition(graph, rules, chip)
    assert result.of("stages.0.first.0").reason == "rule 'stages.0.*' says digital"
    assert not result.of("stages.0.first.0").analog
    assert result.of("stages.2.first.0").tile_type == "big"
    assert result.of("stages.2.first.0").reason == "rule 'stages.*' says analog on tile type 'big'"
    assert result.of("head").reason == "rule 'head' says analog"
    assert result.of("head").groups_per_tile is None
    assert result.of("stem.0").reason == "default: every matrix is analog"


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"haed": {"analog": False}}, "rule 'haed' matches no matrix operation; did you mean 'head'?"),
        ({"head": {"analogue": False}}, "rule 'head': there is no setting 'analogue'; did you mean 'analog'?"),
        ({"head": {"analog": 0}}, "rule 'head': analog is 0, a int: give a bool"),
        ({"head": {"tile_type": "bigg"}}, "has no tile type 'bigg'; did you mean 'big'?"),
        ({"head": {"groups_per_tile": True}}, "rule 'head': groups_per_tile is True, a bool: give a int"),
        ({"head": {"groups_per_tile": 0}}, "rule 'head': groups_per_tile is 0: give 1, for a tile a group, or more"),
        ({"head": {}}, "rule 'head' sets nothing: give one of analog, tile_type, groups_per_tile"),
        (
            {"pool": {"analog": False}},
            "rule 'pool' matches no matrix operation, only the digital adaptive_avg_pool2d at",
        ),
        ([("*", {"analog": False}), ("head", {"analog": True})], "rule 'head' never applies: 'head' and all else it"),
        ([("head",)], "('head',) is no rule: write (pattern, settings)"),
    ],
)
def test_mistakes_are_errors(graph: Graph, chip: ChipSpec, rules: Any, text: str) -> None:
    with pytest.raises(RuleError, match=re.escape(text)):
        partition(graph, rules, chip)


def test_groups_per_tile_is_kept_with_its_reason(graph: Graph, chip: ChipSpec) -> None:
    head = partition(graph, {"head": {"groups_per_tile": 2, "tile_type": "big"}}, chip).of("head")
    assert (head.analog, head.tile_type, head.groups_per_tile) == (True, "big", 2)
    assert head.reason == "rule 'head' says analog on tile type 'big', at most 2 of its groups a tile"


def test_uses_of_one_matrix_must_agree(chip: ChipSpec) -> None:
    tied = capture(*NETWORKS["tied"]())
    with pytest.raises(RuleError, match=r"'first' and 'second' use one matrix \(first.weight\), but rules put them in"):
        partition(tied, {"second": {"analog": False}}, chip)
    with pytest.raises(RuleError, match=r"'first' and 'second' use one matrix .* at most 1 of its groups a tile"):
        partition(tied, {"second": {"groups_per_tile": 1}}, chip)
    result = partition(tied, {"[fs]*": {"analog": False}}, chip)
    assert [a.analog for a in result.assignments] == [False, False, False, True, True]

"""Mixtures of experts: values by the true routing; time, energy and counts by the one that a rule declares."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mixtures import (
    EXPERTS,
    INNER,
    TWO_OF_FOUR,
    WIDTH,
    Chosen,
    Expert,
    Gathered,
    Masked,
    SideBySide,
    Stacked,
    built,
)
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.compiler import CompiledModel
from aimc_compiler.errors import RuleError, TextFormError, UnsupportedOpError, VerificationError
from aimc_compiler.graph import capture
from aimc_compiler.program import parse_program, print_program
from aimc_compiler.report import inspect_json, mixtures_note
from aimc_compiler.workload import DigitalOp, parse_workload, print_workload, verify_workload

PATTERNS = {Masked: ("experts.*",), SideBySide: ("experts.*",), Stacked: ("up", "down"), Chosen: ("up.*", "down.*")}


def compiled(network: nn.Module, tokens: int = 6, chip: str = "ideal", **settings: Any) -> CompiledModel:
    """For two of four experts; settings change that, ``experts=None`` leaves it out."""
    patterns = PATTERNS.get(type(network), ("experts.*",))
    rules = None if settings.get("experts", 1) is None else {p: {**TWO_OF_FOUR, **settings} for p in patterns}
    return aimc.compile(network, chip, (torch.zeros(1, tokens, WIDTH),), rules=rules)


def windows(model: CompiledModel) -> dict[str, int]:
    return {op.name: op.windows for op in model.workload.matrix_ops}


@pytest.mark.parametrize(
    ("network", "balance"), [*((network, "even") for network in PATTERNS), (Masked, "worst"), (Chosen, "worst")]
)
def test_values_follow_the_true_routing(network: type[nn.Module], balance: str) -> None:
    model = built(network)
    x = torch.randn(5, 6, WIDTH)
    result = compiled(model, balance=balance).deploy().run(x)
    torch.testing.assert_close(result.outputs, model(x), rtol=1e-5, atol=1e-6)
    # Every expert was computed for every token (twice, where pairs of token and choice are), two of four were timed.
    per_token = {Masked: 12, SideBySide: 12, Stacked: 8, Chosen: 16}[network]
    chosen = {Masked: 6, SideBySide: 6, Stacked: 4, Chosen: 4}[network]
    assert (result.counts.mvms, result.counts.timed_mvms) == (30 * (1 + per_token), 30 * (1 + chosen))


def test_each_expert_sees_its_share_and_none_is_lost() -> None:
    """7 tokens take 14 experts: 4, 4, 3 and 3. One token takes two; the others are idle."""
    for tokens, shares in ((7, [4, 4, 3, 3]), (1, [1, 1, 0, 0]), (6, [3, 3, 3, 3])):
        found = windows(compiled(built(Masked), tokens))
        assert [found[f"experts.{number}.w2"] for number in range(EXPERTS)] == shares
        assert found["router.gate"] == tokens
    assert [windows(compiled(built(Chosen), 7))[f"up.{number}"] for number in range(4)] == [4, 4, 3, 3]
    worst = windows(compiled(built(Masked), 7, balance="worst"))
    assert [worst[f"experts.{number}.w1"] for number in range(EXPERTS)] == [7, 7, 0, 0]


def test_all_experts_for_each_token_is_no_assumption() -> None:
    """4 of 4: time, energy and counts are those without the rule."""
    model = built(Masked)
    all_of_them, plain = compiled(model, active=4).timing, compiled(model, experts=None).timing
    assert all_of_them.energy_j == pytest.approx(plain.energy_j, rel=1e-12)
    assert (all_of_them.counts, all_of_them.latency_ticks) == (plain.counts, plain.latency_ticks)


class Dealt(nn.Module):
    """What a balanced mixture of one of two experts does: each has its half of the tokens."""

    def __init__(self, masked: nn.Module) -> None:
        super().__init__()
        self.router, self.experts = masked.router, masked.experts

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return self.experts[0](first), self.experts[1](second)


def test_experts_cost_what_they_cost_on_their_share_of_the_tokens() -> None:
    """Energy of each expert's matrices and activations against a network that gives each its tokens alone."""
    masked = built(Masked, [Expert(), Expert()])
    rule = {"experts.*": {"experts": 2, "active": 1}}
    mixture = aimc.compile(masked, "analog-fabric", (torch.zeros(1, 8, WIDTH),), rules=rule)
    halves = (torch.zeros(1, 4, WIDTH), torch.zeros(1, 4, WIDTH))
    by_hand = aimc.compile(Dealt(masked).eval(), "analog-fabric", halves)

    def spent(model: CompiledModel, kind: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for task in model.program.tasks:
            if task.kind == kind and task.op.startswith("experts."):
                op = task.op.partition("/")[0]
                found[op] = found.get(op, 0.0) + task.events * sum(joules for _, joules in task.energy_j)
        return found

    for kind in ("mvm", "local", "digital"):
        assert spent(mixture, kind) == pytest.approx(spent(by_hand, kind), rel=1e-12)
        assert spent(mixture, kind)
    assert len(spent(mixture, "mvm")) == 6


def test_the_work_between_experts_is_theirs_alone() -> None:
    """Products with the router's weight and the sum are made for dealt windows; the router's own work is whole."""
    work = {op.name: op.work for op in compiled(built(Masked)).workload.ops if isinstance(op, DigitalOp)}
    plain = {op.name: op.work for op in compiled(built(Masked), experts=None).workload.ops if isinstance(op, DigitalOp)}
    assert work["experts.0/silu"] == plain["experts.0/silu"] // 2 == 3 * INNER
    assert work["mul_2"] == plain["mul_2"] // 2 == 3 * WIDTH
    assert work["add_3"] == plain["add_3"] // 2
    assert work["router/softmax"] == plain["router/softmax"]


def test_a_window_waits_for_its_share() -> None:
    """Of 6 tokens an expert sees 3: its window 1 stands for tokens 2 and 3, and token 3 needs it back."""
    ops = {op.name: op for op in compiled(built(Masked)).workload.ops}
    there, back = ops["experts.0.w1"].access, ops["add"].accesses[-1]
    assert [there.last_needed(window, 6) for window in range(3)] == [1, 3, 5]
    assert [back.last_needed(window, 3) for window in range(6)] == [0, 0, 1, 1, 2, 2]
    assert ops["experts.0.w2"].access.kind == "same"


def test_worst_and_even_spend_the_same() -> None:
    """The sum of all experts' work does not depend on who does it; the busiest tile has twice as much."""
    even, worst = (compiled(built(Masked), 8, balance=balance) for balance in ("even", "worst"))
    assert even.timing.counts.mvms == worst.timing.counts.mvms
    busiest = [max(ticks for name, ticks in m.timing.busy_ticks.items() if name == "tile 1") for m in (even, worst)]
    assert busiest[1] == 2 * busiest[0]
    assert not [task for task in worst.program.tasks if task.op.startswith(("experts.2", "experts.3"))]
    # Idle experts keep their tiles.
    assert even.utilization.tiles_used == worst.utilization.tiles_used == 13


def test_the_assumption_is_kept_and_told(tmp_path: Path) -> None:
    model = compiled(built(Masked), chip="analog-fabric")
    assumption = "2 of 4 experts a token, balanced"
    assert model.workload.matrix_ops[1].reason == f"rule 'experts.*' says analog, timed for {assumption}"
    assert mixtures_note(model) == (
        f"experts: timed for {assumption}. Values follow the true routing, and are computed with every expert for "
        "every token: 78 MVMs a sample, of which time, energy and counts are of 42"
    )
    told = inspect_json(model)
    assert [each["assumption"] for each in told["mixtures"]] == [assumption]
    assert [(row["windows"], row["computed_windows"]) for row in told["layers"]][:2] == [(6, 6), (3, 6)]
    loaded = aimc.load(model.save(tmp_path / "net.aimc"))
    assert loaded.workload == model.workload
    assert loaded.program.routings == model.program.routings
    assert loaded.timing.energy_j == model.timing.energy_j
    assert parse_workload(print_workload(model.workload)) == model.workload
    assert parse_program(print_program(model.program)) == model.program


def test_a_share_that_is_not_that_of_the_assumption_is_refused() -> None:
    workload = compiled(built(Masked)).workload
    verify_workload(workload)
    text = print_workload(workload)
    line = next(line for line in text.splitlines() if line.startswith('matrix_op name="experts.1.w1"'))
    for old, new, message in (
        ('"active":2', '"active":3', r"'experts.1.w1' has 3 windows, its share of 6 is 5"),
        ('"expert":1', '"expert":4', r"is expert 4 of 2 of 4 experts"),
        ('"active":2', '"active":0', r"is expert 1 of 0 of 4 experts"),
        ('"output_size":[3]', '"output_size":[2]', r"\(6,\) windows are dealt to \(2,\), but there are 6 and 3"),
    ):
        assert old in line
        with pytest.raises(VerificationError, match=message):
            verify_workload(parse_workload(text.replace(line, line.replace(old, new))))
    with pytest.raises(TextFormError, match="balance"):
        parse_workload(text.replace(line, line.replace('"active":2', '"active":2,"balance":"odd"')))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"experts": 4}, "experts without active: a mixture needs both"),
        ({"active": 2}, "active without experts"),
        ({"balance": "even"}, "balance without experts"),
        ({"experts": 4, "active": 5}, "active is 5, more than the 4 experts there are"),
        ({"experts": 4, "active": 0}, "active is 0: give 1 or more"),
        ({"experts": 4, "active": 2, "balance": "evn"}, "there is no balance 'evn'; did you mean 'even'"),
        ({"experts": 8, "active": 2}, r"says experts: 8, but 'experts.0.w1' \(8 x 12\) is no part of a mixture of so "
                                      r"many: 'experts' holds 4 alike \(0, 1, 2, 3\)"),
    ],
)  # fmt: skip
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RuleError, match=message):
        aimc.compile(built(Masked), "ideal", (torch.zeros(1, 6, WIDTH),), rules={"experts.*": settings})


def test_a_matrix_beside_the_experts_is_named() -> None:
    with pytest.raises(RuleError, match=r"but 'router.gate' \(8 x 4\) is no part of a mixture.*nothing beside it"):
        aimc.compile(built(Masked), "ideal", (torch.zeros(1, 6, WIDTH),), rules={"*": TWO_OF_FOUR})


def test_groups_of_one_matrix_have_no_idle_expert() -> None:
    with pytest.raises(RuleError, match="balance: worst, but 'up' is one matrix of 4 groups"):
        compiled(built(Stacked), balance="worst")
    # Each group sees as much, rounded up: one token is on all of them.
    assert windows(compiled(built(Stacked), 1)) == {"router.gate": 1, "up": 1, "down": 1}


def test_choices_are_a_whole_number_of_tokens() -> None:
    with pytest.raises(
        RuleError, match=r"'up.0' multiplies 14 vectors a sample.*no whole number of tokens at active: 3"
    ):
        compiled(built(Chosen), 7, active=3)


class Chain(nn.Module):
    """What looks like two experts: two layers of which one reads the other, two recurrent ones."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.cells = nn.ModuleList(nn.LSTM(WIDTH, WIDTH, batch_first=True) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.experts
        return second(first(x)) if self.what == "chain" else self.cells[0](x)[0] + self.cells[1](x)[0]


@pytest.mark.parametrize(
    ("what", "pattern", "message"),
    [
        ("chain", "experts.*", "'experts.1' would be expert 1 of 'experts', but reads what expert 0 of it makes"),
        ("loop", "cells.*.weight_hh_l0", "in the loop of a recurrent layer, whose steps cannot be dealt"),
    ],
)
def test_what_cannot_be_dealt(what: str, pattern: str, message: str) -> None:
    rules = {pattern: {"experts": 2, "active": 1}}
    with pytest.raises(RuleError, match=message):
        aimc.compile(built(Chain, what), "ideal", (torch.zeros(1, 6, WIDTH),), rules=rules)


def test_an_output_that_only_some_tokens_have() -> None:
    class Alone(Masked):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), self.experts[2](x)

    with pytest.raises(RuleError, match=r"output 'experts_2_w2_2' of Alone is made of an expert's outputs alone"):
        compiled(built(Alone))


def test_tokens_picked_by_value_are_refused_with_the_line() -> None:
    """How many there are depends on values, so there is no program for them; the error says what to write."""
    with pytest.raises(
        UnsupportedOpError, match=r"aten.where.default at .*mixtures.py:\d+ .*let every expert multiply"
    ):
        capture(built(Gathered), (torch.randn(2, 6, WIDTH),))


def test_noise_does_not_depend_on_the_assumption() -> None:
    """Values, noise included, are those of the same chip without the rule; so are those of a batch and its parts."""
    model, x = built(Masked), torch.randn(4, 6, WIDTH)
    with_rule, without = (compiled(model, chip="analog-fabric", experts=e).calibrate([x]) for e in (EXPERTS, None))
    outputs = with_rule.deploy(seed=1)(x)
    assert torch.equal(outputs, without.deploy(seed=1)(x))
    chip = with_rule.deploy(seed=1)
    assert torch.equal(torch.cat([chip(x[:1]), chip(x[1:])]), outputs)

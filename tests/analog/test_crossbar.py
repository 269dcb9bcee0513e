"""The nodal solver against a dense netlist, closed forms, badcrossbar, and the laws that any such network keeps.

``golden_crossbar.npz`` holds currents that badcrossbar 1.1.0 (MIT licence; Joksas and Mehonic, SoftwareX 12, 100617
(2020)) gave for the arrays beside them; where that package is installed (``pip install --no-deps badcrossbar scipy
pathvalidate``, since its plots need the cairo library) it is asked anew.
"""

import importlib
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.analog import crossbar as module
from aimc_compiler.analog.crossbar import Crossbar, Wires
from aimc_compiler.analog.readout import read_columns
from aimc_compiler.errors import AimcError

GOLDEN = Path(__file__).parent / "golden_crossbar.npz"


def netlist_currents(g: Any, v: Any, wires: Wires) -> Any:
    """(vectors, columns): every resistor an entry of one dense matrix. Wires of 0 ohm make one node of their ends."""
    rows, columns = g.shape
    segments = wire_segments(rows, columns, wires)
    cells = [(("a", i, j), ("b", i, j), 1 / g[i, j]) for i in range(rows) for j in range(columns) if g[i, j]]
    node_of = merge_shorted(segments)
    known = [("v", i) for i in range(rows)] + [("0", j) for j in range(columns)]
    nodes = sorted({node_of((kind, i, j)) for kind in "ab" for i in range(rows) for j in range(columns)} - set(known))
    index = {node: n for n, node in enumerate([*nodes, *known])}
    conductance = np.zeros((len(index), len(index)))
    for one, other, ohm in [*segments, *cells]:
        p, q = index[node_of(one)], index[node_of(other)]
        if p != q:
            conductance[[p, q], [p, q]] += 1 / ohm
            conductance[[p, q], [q, p]] -= 1 / ohm
    inner, outer = slice(0, len(nodes)), slice(len(nodes), None)
    ends = np.concatenate([v.T, np.zeros((columns, len(v)))])
    solved = np.linalg.solve(conductance[inner, inner], -conductance[inner, outer] @ ends)
    voltages = np.concatenate([solved, ends])
    return -(conductance @ voltages)[index[("0", 0)] :].T


def wire_segments(rows: int, columns: int, wires: Wires) -> list[tuple[Any, Any, float]]:
    """(node, node, ohm): ``a`` are nodes on rows, ``b`` on columns, ``v`` drivers, ``0`` virtual grounds."""
    resistors: list[tuple[Any, Any, float]] = []
    row_lead = wires.row_ohm if wires.row_lead_ohm is None else wires.row_lead_ohm
    column_lead = wires.column_ohm if wires.column_lead_ohm is None else wires.column_lead_ohm
    for i in range(rows):
        resistors += [(("a", i, j), ("a", i, j + 1), wires.row_ohm) for j in range(columns - 1)]
        resistors.append((("v", i), ("a", i, 0), row_lead))
        if wires.drive == "both":
            resistors.append((("v", i), ("a", i, columns - 1), row_lead))
    for j in range(columns):
        resistors += [(("b", i, j), ("b", i + 1, j), wires.column_ohm) for i in range(rows - 1)]
        resistors.append((("0", j), ("b", 0, j), column_lead))
        if wires.sense == "both":
            resistors.append((("0", j), ("b", rows - 1, j), column_lead))
    return resistors


def merge_shorted(segments: list[tuple[Any, Any, float]]) -> Any:
    merged: dict[Any, Any] = {}

    def root(node: Any) -> Any:
        while node in merged:
            node = merged[node]
        return node

    for one, other, ohm in segments:
        if ohm == 0 and root(one) != root(other):
            inner, outer = (one, other) if root(one)[0] in "ab" else (other, one)
            merged[root(inner)] = root(outer)
    return root


OHMS = st.sampled_from([0.0, 0.5, 20.0, 3000.0])


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 5)),
    row_ohm=OHMS,
    column_ohm=OHMS,
    leads=st.tuples(st.sampled_from([None, 0.0, 7.0]), st.sampled_from([None, 0.0, 150.0])),
    ends=st.tuples(st.sampled_from(["first", "both"]), st.sampled_from(["first", "both"])),
    holes=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_any_array_agrees_with_its_netlist(
    shape: tuple[int, int], row_ohm: float, column_ohm: float, leads: Any, ends: Any, holes: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    wires = Wires(
        row_ohm=row_ohm,
        column_ohm=column_ohm,
        row_lead_ohm=leads[0] if row_ohm else None,
        column_lead_ohm=leads[1] if column_ohm else None,
        drive=ends[0],
        sense=ends[1] if column_ohm else "first",
    )
    g = rng.uniform(1e-5, 1e-3, shape) * (rng.random(shape) > 0.3 if holes else 1)
    v = rng.uniform(-1, 1, (3, shape[0]))
    solution = Crossbar(torch.from_numpy(g), wires).solve(torch.from_numpy(v))
    expected = netlist_currents(g, v, wires)
    np.testing.assert_allclose(solution.output_a.numpy(), expected, rtol=0, atol=1e-9 * max(g.max(), 1e-5))
    np.testing.assert_allclose(solution.ends_a.sum(0).numpy(), expected, rtol=0, atol=1e-9 * max(g.max(), 1e-5))


@pytest.mark.parametrize("far", [0.0, 3.0])
def test_kirchhoff_holds_at_every_node_of_a_column(far: float) -> None:
    """What leaves at both ends is what the cells bring; between the ends each segment carries the sum of its side."""
    torch.manual_seed(1)
    wires = Wires(row_ohm=4.0, column_ohm=2.0, column_lead_ohm=far, sense="both")
    solution = Crossbar(torch.rand(9, 4) * 1e-3, wires).solve(torch.rand(2, 9))
    segments = torch.diff(solution.column_v, dim=1) / 2.0
    brought = torch.cumsum(solution.cell_a, dim=1)[:, :-1]
    assert torch.allclose(segments, solution.ends_a[0].unsqueeze(1) - brought, atol=1e-13)
    assert bool((solution.ends_a > 0).all())


def test_a_uniform_column_is_a_transmission_line() -> None:
    """n cells g on a wire of r a segment: with cosh(2 t) = 1 + g r / 2, what a cell still sees of the drive is a
    hyperbolic cosine of its distance from the open end.
    """
    n, g, r = 300, 2e-5, 1.5
    t = np.arccosh(1 + g * r / 2) / 2
    share = np.cosh((2 * (n - 1 - np.arange(n)) + 1) * t) / np.cosh((2 * n + 1) * t)
    expected = g * share.sum()
    found = Crossbar(torch.full((n, 1), g, dtype=torch.float64), Wires(column_ohm=r)).solve(torch.ones(1, n)).output_a
    assert float(found) == pytest.approx(expected, rel=1e-11)


def test_ideal_wires_multiply() -> None:
    g, v = torch.rand(7, 5, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    assert torch.allclose(Crossbar(g, Wires()).solve(v).output_a, v @ g, rtol=1e-14, atol=1e-14)


def test_superposition_and_reciprocity() -> None:
    torch.manual_seed(2)
    array = Crossbar(torch.rand(8, 8) * 1e-3, Wires(row_ohm=30.0, column_ohm=50.0))
    v = torch.randn(2, 8, dtype=torch.float64)
    both = array.solve(torch.stack([v[0], v[1], 2 * v[0] - 3 * v[1]])).output_a
    assert torch.allclose(2 * both[0] - 3 * both[1], both[2], atol=1e-14)
    swapped = Crossbar(array.conductance_s.T, Wires(row_ohm=50.0, column_ohm=30.0))
    one_way, other_way = array.solve(torch.eye(8)).output_a, swapped.solve(torch.eye(8)).output_a
    assert torch.allclose(one_way, other_way.T, atol=1e-15)


def test_better_wires_and_more_ends_lose_less() -> None:
    torch.manual_seed(3)
    g, v = torch.rand(40, 20) * 1e-4, torch.rand(4, 40, dtype=torch.float64)
    ideal = v @ g.to(v)
    losses = []
    for ohm, drive, sense in (
        (5.0, "first", "first"),
        (5.0, "both", "first"),
        (5.0, "both", "both"),
        (0.5, "both", "both"),
    ):
        solution = Crossbar(g, Wires(row_ohm=ohm, column_ohm=ohm, drive=drive, sense=sense)).solve(v)
        losses.append(float((1 - solution.output_a / ideal).mean()))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] > 0
    assert losses[0] > 2 * losses[2]


def test_vectors_solved_together_are_those_solved_alone() -> None:
    torch.manual_seed(4)
    array = Crossbar(torch.rand(30, 30) * 1e-3, Wires(row_ohm=9.0, column_ohm=9.0))
    v = torch.randn(5, 30, dtype=torch.float64) * torch.tensor([[1.0], [1e-6], [0.0], [1e3], [1.0]])
    together = array.solve(v)
    assert together.iterations > 0
    for vector, output in zip(v, together.output_a, strict=True):
        alone = array.solve(vector[None]).output_a[0]
        assert torch.allclose(alone, output, rtol=1e-9, atol=1e-12 * float(vector.abs().max()) * 1e-3)


def badcrossbar() -> Any:
    with warnings.catch_warnings(record=True):
        package = pytest.importorskip("badcrossbar")
        importlib.import_module("badcrossbar.computing")
    logging.getLogger().setLevel(logging.WARNING)
    return package


def cases() -> list[dict[str, Any]]:
    """Row 0 is nearest the virtual ground here, the last row in badcrossbar."""
    rng = np.random.default_rng(7)
    sizes = [
        (6, 4, 1.3, 0.7),
        (20, 30, 10, 5),
        (33, 17, 0, 40),
        (17, 33, 40, 0),
        (30, 20, 1000, 300),
        (64, 64, 0.35, 0.35),
    ]
    made = []
    for rows, columns, row_ohm, column_ohm in sizes:
        resistance = 1 / rng.uniform(1e-6, 1e-4, (rows, columns))
        made.append({"ohm": resistance, "v": rng.uniform(-1, 1, (3, rows)), "row": row_ohm, "column": column_ohm})
    return made


def ours(case: dict[str, Any]) -> Any:
    wires = Wires(row_ohm=case["row"], column_ohm=case["column"])
    array = Crossbar(torch.from_numpy(1 / case["ohm"]), wires)
    return array.solve(torch.from_numpy(case["v"])).output_a.numpy()


def theirs(package: Any, case: dict[str, Any]) -> Any:
    flipped = case["v"][:, ::-1].T
    solution = package.compute(flipped, case["ohm"][::-1], r_i_word_line=case["row"], r_i_bit_line=case["column"])
    return solution.currents.output


def test_badcrossbar_figures() -> None:
    with np.load(GOLDEN) as golden:
        for number, case in enumerate(cases()):
            expected = golden[str(number)]
            np.testing.assert_allclose(ours(case), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_badcrossbar_itself() -> None:
    package = badcrossbar()
    for case in cases():
        expected = theirs(package, case)
        np.testing.assert_allclose(ours(case), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_readings_of_ideal_wires_are_one_product() -> None:
    torch.manual_seed(5)
    g, x = torch.rand(12, 6, dtype=torch.float64), torch.rand(3, 12, dtype=torch.float64) * 2 - 1
    for load in ("spread", "aligned", "grounded"):
        assert torch.allclose(read_columns(g, x, Wires(), load), x @ g, atol=1e-13)


def test_inputs_that_are_on_or_off_meet_all_the_time() -> None:
    """Pulses of full width: spread and aligned are one network; cells that stay connected still load the wire more."""
    torch.manual_seed(6)
    g, x = torch.rand(25, 6) * 1e-3, torch.bernoulli(torch.full((4, 25), 0.5))
    wires = Wires(row_ohm=3.0, column_ohm=5.0)
    spread, aligned, grounded = (read_columns(g, x, wires, load) for load in ("spread", "aligned", "grounded"))
    assert torch.allclose(spread, aligned, atol=1e-14)
    assert bool((grounded < spread).all())


def test_grounded_pulses_are_amplitudes() -> None:
    """The network is linear, so its mean over slices of time is its answer to the mean voltages."""
    torch.manual_seed(7)
    array = Crossbar(torch.rand(20, 5) * 1e-3, Wires(row_ohm=3.0, column_ohm=5.0))
    codes = torch.randint(0, 16, (20,))
    slices = torch.stack([(codes > step).to(torch.float64) for step in range(15)])
    mean = array.solve(slices).output_a.mean(dim=0)
    read = read_columns(array.conductance_s, codes[None] / 15, array.wires, "grounded")
    assert torch.allclose(mean, read[0], rtol=1e-7)


def test_aligned_pulses_slice_by_slice() -> None:
    torch.manual_seed(8)
    g, wires, codes = torch.rand(12, 5) * 1e-3, Wires(row_ohm=3.0, column_ohm=5.0), torch.randint(0, 8, (12,))
    slices = [
        Crossbar(g * (codes > step).to(g).unsqueeze(1), wires).solve(torch.ones(1, 12)).output_a[0] for step in range(7)
    ]
    read = read_columns(g, codes[None].to(torch.float64) / 7, wires, "aligned")
    assert torch.allclose(torch.stack(slices).mean(dim=0), read[0], atol=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crossbar(-torch.ones(2, 2), Wires()), r"finite and not negative, not \(2, 2\) from -1"),
        (lambda: Crossbar(torch.ones(2), Wires()), r"must be \(rows, columns\)"),
        (lambda: Crossbar(torch.ones(2, 2), Wires()).solve(torch.ones(1, 3)), r"must be \(vectors, 2 rows\), not"),
        (lambda: Crossbar(torch.ones(2, 2), Wires(row_ohm=-1)), "row_ohm -1 and row_lead_ohm -1: give finite numbers"),
        (lambda: Crossbar(torch.ones(2, 2), Wires(column_lead_ohm=2)), "column_lead_ohm is 2 at ideal column wires"),
        (
            lambda: Crossbar(torch.ones(2, 2), Wires(sense="both")),
            "ideal columns .column_ohm 0. are one node, which has no two ends: set sense to first",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(make: Any, message: str) -> None:
    with pytest.raises(AimcError, match=message):
        make()


def test_a_network_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_ITERATIONS", 2)
    array = Crossbar(torch.rand(30, 30), Wires(row_ohm=1.0, column_ohm=1.0))
    with pytest.raises(AimcError, match="the network of 30 x 30 cells is not solved after 2 iterations"):
        array.solve(torch.ones(1, 30))


if __name__ == "__main__":
    package = badcrossbar()
    np.savez_compressed(GOLDEN, **{str(n): theirs(package, case) for n, case in enumerate(cases())})

"""A crossbar as the resistive network it is: every cell, every segment of wire, solved for all node voltages.

Cell (i, j) of conductance ``G_ij`` joins row wire i and column wire j; neighbouring cells of a wire are one segment
apart. Rows are driven with voltages at one end or both, columns end in virtual grounds at one end or both. With ``a``
the voltages on rows and ``b`` on columns, Kirchhoff's current law reads::

    R a - G b = driven        C b - G a = 0        (G cell by cell; R, C: wires plus cells along rows, along columns)

R and C fall into independent lines (``lines.py``). Where one kind of wire is ideal, one pass over the lines of the
other is the solution. Otherwise b is eliminated and ``(R - G C^-1 G) a = ...`` solved by conjugate gradients with R as
preconditioner: the factorised lines serve every iteration and every input vector, and since wires conduct far better
than cells few iterations suffice. Everything is float64.

The closed form of ``ir_drop.py`` is measured against this in ``docs/ir-drop.md``.
"""

from math import inf
from typing import Literal

import torch
from torch import Tensor

from aimc_compiler.analog.lines import Lines, Outlets
from aimc_compiler.errors import AimcError
from aimc_compiler.records import record

Ends = Literal["first", "both"]

_TOLERANCE = 1e-13
_MAX_ITERATIONS = 5000


@record
class Wires:
    """Resistances in ohm. row_ohm, column_ohm: of one segment; 0 is an ideal wire.

    row_lead_ohm: from a driver to the first cell of its row; column_lead_ohm: from the cell at the end to the virtual
    ground; None: one segment. drive: at column 0 only, or at both ends of each row; sense: at row 0 only, or at both
    ends of each column.
    """

    row_ohm: float = 0.0
    column_ohm: float = 0.0
    row_lead_ohm: float | None = None
    column_lead_ohm: float | None = None
    drive: Ends = "first"
    sense: Ends = "first"

    def outlets(self, wire: Literal["row", "column"]) -> Outlets | None:
        """The lines of a kind; None where they are ideal. Raises AimcError on resistances that have no meaning."""
        segment, lead, ends = (
            (self.row_ohm, self.row_lead_ohm, self.drive)
            if wire == "row"
            else (self.column_ohm, self.column_lead_ohm, self.sense)
        )
        lead = segment if lead is None else lead
        if not (0 <= segment < inf and 0 <= lead < inf):
            raise AimcError(
                f"{wire}_ohm {segment:g} and {wire}_lead_ohm {lead:g}: give finite numbers of ohm, 0 or more"
            )
        if segment == 0 and wire == "column" and ends == "both":
            raise AimcError("ideal columns (column_ohm 0) are one node, which has no two ends: set sense to first")
        if segment == 0:
            if lead > 0:
                raise AimcError(
                    f"{wire}_lead_ohm is {lead:g} at ideal {wire} wires ({wire}_ohm 0): give {wire}_ohm a small value, "
                    f"or set {wire}_lead_ohm to 0"
                )
            return None
        outlet = 1 / lead if lead else inf
        return Outlets(segment_s=1 / segment, first_s=outlet, last_s=outlet if ends == "both" else 0.0)


@record
class CrossbarSolution:
    """Of each input vector. row_v, column_v: (vectors, rows, columns) node voltages; cell_a: currents, row to column.

    ends_a: (2, vectors, columns), what leaves a column at row 0 and at the last row; iterations: of the conjugate
    gradients, 0 where lines alone gave the solution.
    """

    row_v: Tensor
    column_v: Tensor
    cell_a: Tensor
    ends_a: Tensor
    iterations: int

    @property
    def output_a(self) -> Tensor:
        """(vectors, columns): the current of each column, both ends together."""
        return self.cell_a.sum(dim=1)


@record
class _Axis:
    """The wires of one direction with their cells. g: (nodes, lines); outlets, lines: None for ideal wires."""

    g: Tensor
    outlets: Outlets | None
    lines: Lines | None

    @classmethod
    def of(cls, g: Tensor, outlets: Outlets | None) -> "_Axis":
        if outlets is None or not len(g[outlets.free(len(g))]):
            return cls(g=g, outlets=outlets, lines=None)
        return cls(g=g, outlets=outlets, lines=Lines.factorise(g[outlets.free(len(g))], outlets))

    def at_ends(self, end_v: Tensor) -> Tensor:
        """(nodes, vectors, lines): every node at the potential outside, (vectors, lines)."""
        return end_v.expand(len(self.g), *end_v.shape)

    def solve(self, other_v: Tensor, end_v: Tensor) -> Tensor:
        """Node voltages where the wires across are at ``other_v``, (nodes, vectors, lines)."""
        solved = self.at_ends(end_v).clone()
        if self.outlets is None or self.lines is None:
            return solved
        free = self.outlets.free(len(self.g))
        first_s, last_s = self.outlets.inside()
        current = self.g[free].unsqueeze(1) * other_v[free]
        current[0] += first_s * end_v
        current[-1] += last_s * end_v
        solved[free] = self.lines.solve(current)
        return solved

    def apply(self, voltage: Tensor) -> Tensor:
        """Currents that hold the nodes at ``voltage`` with the ends at 0; 0 at tied nodes."""
        held = torch.zeros_like(voltage)
        if self.outlets is not None and self.lines is not None:
            free = self.outlets.free(len(self.g))
            held[free] = self.lines.apply(voltage[free], self.g[free])
        return held


class Crossbar:
    """One array, factorised once. conductance_s: (rows, columns) in S, none negative; 0 is a cell that is not there.

    >>> import torch
    >>> array = Crossbar(torch.full((2, 1), 1e-3), Wires(column_ohm=1.0))
    >>> [round(1e6 * float(current), 1) for current in array.solve(torch.tensor([[0.5, 0.5]])).output_a[0]]
    [997.5]
    """

    def __init__(self, conductance_s: Tensor, wires: Wires) -> None:
        g = conductance_s.detach().to(torch.float64)
        if g.dim() != 2 or not g.numel() or not bool((torch.isfinite(g) & (g >= 0)).all()):
            raise AimcError(
                f"conductances must be (rows, columns), finite and not negative, not {tuple(g.shape)} from "
                f"{float(g.min()) if g.numel() else 0:g}: give magnitudes, a crossbar for each polarity"
            )
        self.conductance_s, self.wires = g, wires
        self._along_rows = _Axis.of(g.T.contiguous(), wires.outlets("row"))
        self._along_columns = _Axis.of(g, wires.outlets("column"))

    def solve(self, row_v: Tensor) -> CrossbarSolution:
        """The array driven by ``row_v``: (vectors, rows), in V.

        Raises AimcError on another shape, and where the iteration does not converge.
        """
        v = row_v.to(self.conductance_s)
        if v.dim() != 2 or v.shape[1] != len(self.conductance_s):
            raise AimcError(f"voltages must be (vectors, {len(self.conductance_s)} rows), not {tuple(v.shape)}")
        ground = v.new_zeros(len(v), self.conductance_s.shape[1])
        a = self._along_rows.at_ends(v)
        iterations = 0
        if self._along_rows.outlets and self._along_columns.outlets:
            a, iterations = self._iterate(a, v, ground)
        b = self._along_columns.solve(_crossed(a), ground)
        if self._along_rows.outlets:
            # One step of block Gauss-Seidel: it takes away what rounding left, and is exact where columns are ideal.
            a = self._along_rows.solve(_crossed(b), v)
            b = self._along_columns.solve(_crossed(a), ground)
        return self._solution(a, b, iterations)

    def _iterate(self, a: Tensor, v: Tensor, ground: Tensor) -> tuple[Tensor, int]:
        """Conjugate gradients from ``a``, (columns, vectors, rows); all vectors at once, until every one is solved."""
        rows, columns = self._along_rows, self._along_columns
        scale = v.abs().amax(dim=1).clamp(min=torch.finfo(v.dtype).tiny)

        def step(voltage: Tensor, end: Tensor) -> Tensor:
            """What R makes of ``voltage`` by way of the columns: R^-1 G C^-1 G voltage."""
            return rows.solve(_crossed(columns.solve(_crossed(voltage), ground)), end)

        z = step(a, v) - a
        direction, rest = z, rows.apply(z)
        size = _dot(z, rest)
        for iteration in range(_MAX_ITERATIONS):
            if bool((z.abs().amax(dim=(0, 2)) <= _TOLERANCE * scale).all()):
                return a, iteration
            image = direction - step(direction, torch.zeros_like(v))
            along = _ratio(size, _dot(direction, rows.apply(image)))
            a = a + along * direction
            z = z - along * image
            size, before = _dot(z, rows.apply(z)), size
            direction = z + _ratio(size, before) * direction
        raise AimcError(
            f"the network of {' x '.join(map(str, self.conductance_s.shape))} cells is not solved after "
            f"{_MAX_ITERATIONS} iterations: its wires conduct no better than its cells; use fewer cells or better wires"
        )

    def _solution(self, a: Tensor, b: Tensor, iterations: int) -> CrossbarSolution:
        row_v, column_v = a.permute(1, 2, 0), b.permute(1, 0, 2)
        cell_a = self.conductance_s * (row_v - column_v)
        return CrossbarSolution(
            row_v=row_v,
            column_v=column_v,
            cell_a=cell_a,
            ends_a=self._ends(cell_a, b),
            iterations=iterations,
        )

    def _ends(self, cell_a: Tensor, b: Tensor) -> Tensor:
        total, outlets = cell_a.sum(dim=1), self._along_columns.outlets
        if self.wires.sense == "first":
            return torch.stack([total, torch.zeros_like(total)])
        assert outlets is not None
        if outlets.last_s != inf:
            last = outlets.last_s * b[-1]
        else:
            last = cell_a[:, -1] + (outlets.segment_s * b[-2] if len(b) > 1 else 0)
        return torch.stack([total - last, last])


def _crossed(voltage: Tensor) -> Tensor:
    """From lines of one direction to lines of the other: (nodes, vectors, lines) with nodes and lines exchanged."""
    return voltage.transpose(0, 2).contiguous()


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(dim=(0, 2))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """(1, vectors, 1); 0 for vectors that are solved to the last digit."""
    return torch.where(below > 0, above / below, torch.zeros_like(above)).reshape(1, -1, 1)

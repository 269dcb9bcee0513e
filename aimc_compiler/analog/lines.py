"""Wires as resistive lines: the voltages along parallel lines of cells, solved without cancellation.

A line is a chain of nodes joined by segments of conductance ``s``; every node has a shunt to a known potential, and
either end an outlet: open, through a conductance, or tied. Eliminating from one end gives the admittance ``Y_k`` of all
that lies behind node k::

    Y_0 = g_0 + e_first        Y_k = g_k + s Y_{k-1} / (s + Y_{k-1}) (+ e_last at the last node)

Only sums of positive numbers, so that cells a million times weaker than their wire keep all their digits (the
elimination of Grassmann, Taksar and Heyman, Oper. Res. 33, 1107 (1985)).
"""

from math import inf

import torch
from torch import Tensor

from aimc_compiler.records import record


@record
class Outlets:
    """What a line of wires ends in. segment_s: conductance between two cells; first_s, last_s: of the wire from the
    first and the last cell to the known potential outside, in S; 0 is open, inf is tied to it.
    """

    segment_s: float
    first_s: float
    last_s: float

    def free(self, nodes: int) -> slice:
        """The nodes whose voltage is not known beforehand."""
        return slice(1 if self.first_s == inf else 0, nodes - 1 if self.last_s == inf else nodes)

    def inside(self) -> tuple[float, float]:
        """Conductances from the first and the last free node to the known potential."""
        first = self.segment_s if self.first_s == inf else self.first_s
        last = self.segment_s if self.last_s == inf else self.last_s
        return first, last


@record
class Lines:
    """Parallel lines, factorised. admittance: (free nodes, ..., lines), Y_k in S."""

    outlets: Outlets
    admittance: Tensor

    @classmethod
    def factorise(cls, shunt_s: Tensor, outlets: Outlets) -> "Lines":
        """shunt_s: (free nodes, ..., lines), at least one node, in S."""
        first_s, last_s = outlets.inside()
        segment_s = outlets.segment_s
        admittance = shunt_s.clone()
        admittance[0] += first_s
        for node in range(1, len(shunt_s)):
            behind = admittance[node - 1]
            admittance[node] += segment_s * behind / (segment_s + behind)
        admittance[-1] += last_s
        return cls(outlets=outlets, admittance=admittance)

    def solve(self, current_a: Tensor) -> Tensor:
        """Voltages of the free nodes. current_a: (free nodes, vectors, lines) injected, in A, known ends included."""
        segment_s = self.outlets.segment_s
        nodes = len(self.admittance)
        voltage = current_a.clone()
        pivot = self.admittance[:-1] + segment_s
        passed = segment_s / pivot
        for node in range(1, nodes):
            voltage[node] += passed[node - 1] * voltage[node - 1]
        voltage[-1] /= self.admittance[-1]
        voltage[:-1] /= pivot.unsqueeze(1)
        for node in range(nodes - 2, -1, -1):
            voltage[node] += passed[node] * voltage[node + 1]
        return voltage

    def apply(self, voltage: Tensor, shunt_s: Tensor) -> Tensor:
        """Currents that hold the free nodes at ``voltage``, known ends at 0: what ``solve`` inverts."""
        first_s, last_s = self.outlets.inside()
        current = shunt_s.unsqueeze(1) * voltage
        step = self.outlets.segment_s * torch.diff(voltage, dim=0)
        current[:-1] -= step
        current[1:] += step
        current[0] += first_s * voltage[0]
        current[-1] += last_s * voltage[-1]
        return current

"""What the table of effects holds of each."""

from typing import Literal

from aimc_compiler.records import record

Stage = Literal["input", "mac", "output", "device"]
Scaling = Literal["factor", "bits", "switch"]


@record
class Effect:
    """An entry. path: of its figure, from the spec's root, or from every tile type where ``per_tile``.

    off: the figure's value without the effect; unit: of that figure; scaling: ``factor`` multiplies the figure, a
    factor of 2 takes one of the ``bits`` (it doubles the step), a ``switch`` is on or off; built: modelled in this
    version.
    """

    title: str
    stage: Stage
    path: str
    off: bool | float | str
    unit: str
    does: str
    equation: str
    source: str
    scaling: Scaling = "factor"
    per_tile: bool = False
    built: bool = True

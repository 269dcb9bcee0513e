"""Names of the cost classes: what the digital operations of a network are priced as."""

from typing import Literal, get_args

CostClass = Literal[
    "elementwise",
    "transcendental",
    "reduction",
    "softmax",
    "normalisation",
    "pooling",
    "activation_product",
    "lookup",
    "movement",
]

#: Priced classes. "free" operations (views, renaming) cost nothing and need no entry.
COST_CLASSES: tuple[str, ...] = get_args(CostClass)
FREE = "free"

"""Layers that repeat stand once in a table, and only those that are alike in everything."""

from dataclasses import replace
from io import StringIO

import torch
from rich.console import Console
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.report import layer_rows, layers_table
from aimc_compiler.report.alike import alike_layers
from aimc_compiler.report.layers import LayerRow

ROW = LayerRow(
    name="",
    kind="linear",
    analog=True,
    reason="default",
    rows=4,
    columns=4,
    groups=1,
    windows=3,
    pieces=1,
    tiles=(0,),
    utilization=0.5,
    mvms=3,
    computed_windows=3,
)


def rows(*names: str, **changes: object) -> list[LayerRow]:
    return [replace(ROW, name=name, tiles=(place,), **changes) for place, name in enumerate(names)]  # type: ignore[arg-type]


def found(given: list[LayerRow]) -> list[tuple[str, int]]:
    return [(each.name, each.count) for each in alike_layers(given)]


def test_blocks_that_are_alike_stand_together() -> None:
    given = rows(
        "stem", "layers.0.a", "layers.0.b.1", "layers.1.a", "layers.1.b.1", "layers.2.a", "layers.2.b.1", "head"
    )
    assert found(given) == [("stem", 1), ("layers.0-2.a", 3), ("layers.0-2.b.1", 3), ("head", 1)]


def test_a_block_that_differs_stands_alone() -> None:
    given = rows("layers.0.a", "layers.1.a", "layers.2.a", "layers.3.a", "layers.4.a")
    given[2] = replace(given[2], columns=5)
    assert found(given) == [("layers.0-1.a", 2), ("layers.2.a", 1), ("layers.3-4.a", 2)]


def test_other_reasons_shapes_and_gaps_are_told_apart() -> None:
    assert found([*rows("l.0.a"), *rows("l.1.a", reason="rule")]) == [("l.0.a", 1), ("l.1.a", 1)]
    assert found([*rows("l.0.a"), *rows("l.1.a", analog=False)]) == [("l.0.a", 1), ("l.1.a", 1)]
    assert found(rows("l.0.a", "l.2.a")) == [("l.0.a", 1), ("l.2.a", 1)]
    assert found(rows("l.0.a", "m.1.a")) == [("l.0.a", 1), ("m.1.a", 1)]
    assert found(rows("l.0.a", "l.1.b")) == [("l.0.a", 1), ("l.1.b", 1)]
    assert found(rows("0", "1", "3")) == [("0-1", 2), ("3", 1)]
    assert found([]) == []


class Deep(nn.Module):
    """Twelve layers of two matrices, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(12))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        y: Tensor = self.head(x)
        return y


def test_the_table_of_a_deep_network_is_short_and_complete() -> None:
    compiled = aimc.compile(Deep().eval(), "analog-fabric", (torch.randn(1, 8),))
    assert len(layer_rows(compiled)) == 25
    console = Console(width=140, record=True, file=StringIO())
    table = layers_table(compiled)
    assert table.row_count == 3
    console.print(table)
    text = console.export_text()
    assert "layers.0-11.0" in text
    assert "1 each" in text
    assert "layers that are alike stand together, with the figures of one of them" in text
    assert sum(each.count for each in alike_layers(layer_rows(compiled))) == 25

"""Layers that repeat: blocks of a network whose operations are alike stand once in a table.

A transformer of eighty layers is eighty times the same rows. Blocks are told by the first number in a module path
(``model.layers.7.mlp.up``), and two are alike if their operations are, one by one, in all but their tiles.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from aimc_compiler.records import record
from aimc_compiler.report.layers import LayerRow


@record
class Alike:
    """row: of the first of ``count`` layers that are alike; name: with the numbers of all of them."""

    name: str
    row: LayerRow
    count: int


def alike_layers(rows: Sequence[LayerRow]) -> tuple[Alike, ...]:
    """Rows in execution order, those of consecutive blocks that are alike together.

    >>> [each.name for each in alike_layers(rows)]  # doctest: +SKIP
    ['embed', 'layers.0-79.attention.query', ...]
    """
    found: list[Alike] = []
    run: list[list[LayerRow]] = []
    for (prefix, number), block in groupby(rows, key=_block):
        members = list(block)
        if run and number is not None and _follows(run, prefix, number, members):
            run.append(members)
            continue
        found += _together(run)
        run = [members]
    return (*found, *_together(run))


def _block(row: LayerRow) -> tuple[str, int | None]:
    """(path before its first number, that number); a path without one is its own block."""
    parts = row.name.split(".")
    place = next((index for index, part in enumerate(parts) if part.isdigit()), None)
    return (row.name, None) if place is None else (".".join(parts[:place]), int(parts[place]))


def _follows(run: list[list[LayerRow]], prefix: str, number: int, members: list[LayerRow]) -> bool:
    first_prefix, first_number = _block(run[0][0])
    if first_number is None or first_prefix != prefix or number != first_number + len(run):
        return False
    return [_kept(row) for row in run[0]] == [_kept(row) for row in members]


def _kept(row: LayerRow) -> LayerRow:
    """What must be equal: everything but tiles and the number of the block."""
    prefix, number = _block(row)
    rest = row.name if number is None else row.name[len(prefix) :].lstrip(".")[len(str(number)) :]
    return replace(row, name=rest, tiles=(len(row.tiles),))


def _together(run: list[list[LayerRow]]) -> list[Alike]:
    if len(run) < 2:
        return [Alike(name=row.name, row=row, count=1) for block in run for row in block]
    prefix, first = _block(run[0][0])
    assert first is not None
    numbers = f"{first}-{first + len(run) - 1}"
    start = f"{prefix}.{numbers}" if prefix else numbers
    return [Alike(name=start + _kept(row).name, row=row, count=len(run)) for row in run[0]]

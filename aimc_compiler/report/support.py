"""What of a network has a place on a chip: a row for each kind of operation, and every one that has none."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from aimc_compiler.chip.costs import FREE
from aimc_compiler.graph import OpSupport, Support
from aimc_compiler.records import record
from aimc_compiler.report.experts import mixtures_text
from aimc_compiler.report.layers import counted, percent

_PLACES = ("analog", "digital", "unsupported")
_SOURCES = 2


@record
class KindRow:
    """Operations of one kind in one place. op: "views" stands for all that cost nothing; weights: each matrix once;
    sources: their lines, or the module path where torch kept none (``nn.Sequential``)."""

    op: str
    place: str
    cost_class: str
    count: int
    weights: int
    macs: int
    tiles: int
    sources: tuple[str, ...]


def kind_rows(support: Support) -> tuple[KindRow, ...]:
    """Analog kinds, then digital and unsupported ones; in each the order of execution, views last."""
    kinds: dict[tuple[str, str, str], list[OpSupport]] = {}
    for op in support.ops:
        free = op.cost_class == FREE and op.place == "digital"
        kinds.setdefault((op.place, "views" if free else op.op, op.cost_class), []).append(op)
    rows = [_row(key, ops) for key, ops in kinds.items()]
    return tuple(sorted(rows, key=lambda row: (_PLACES.index(row.place), row.op == "views")))


def support_table(support: Support) -> Table:
    """The kinds; MACs of one sample; tiles where there is a chip."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("operation", "place", "priced as"):
        table.add_column(title)
    titles = ["count", "weights", "MACs", *(["tiles"] if support.chip else [])]
    for title in titles:
        table.add_column(title, justify="right")
    table.add_column("first lines", overflow="fold")
    for row in kind_rows(support):
        numbers = (row.count, row.weights, row.macs, row.tiles)
        cells = ["-" if not number else f"{number:,}" for number in numbers]
        style = "bold red" if row.place == "unsupported" else None
        table.add_row(row.op, row.place, row.cost_class, *cells[: len(titles)], _sources(row), style=style)
    return table


def support_lines(support: Support) -> list[str]:
    """What it comes to, in words, and all that has no place."""
    analog = [op for op in support.ops if op.place == "analog"]
    digital = [op for op in support.ops if op.place == "digital" and op.cost_class != FREE]
    macs = sum(op.macs for op in support.ops)
    share = percent(sum(op.macs for op in analog) / macs) if macs else "none"
    counted_macs = "multiply-accumulates that are counted" if support.unsupported else "multiply-accumulates"
    on = f"; {counted(sum(op.tiles for op in analog), 'tile')} of {support.chip}" if support.chip else ""
    lines = [
        f"{support.network}: {counted(len(analog), 'operation')} analog, with {share} of the {counted_macs} and "
        f"{sum(op.weights for op in analog):,} weights{on}; {len(digital):,} digital; "
        f"{len(support.unsupported) or 'none'} unsupported",
        f"samples: {support.samples}",
        *([f"mixtures: {mixtures_text(support.routings)}"] if support.routings else []),
    ]
    for op in support.unsupported:
        lines += ["", f"unsupported: {op.op} at {op.origin}", f"  {op.reason}"]
    for fault in support.faults:
        lines += ["", f"does not compile: {fault}"]
    return lines


def support_json(support: Support) -> dict[str, Any]:
    """Keys of ``support --json``: kinds as in the table, every operation, what has no place."""
    return {
        "network": support.network,
        "chip": support.chip or None,
        "supported": support.supported,
        "samples": support.samples,
        "kinds": [
            {name: getattr(row, name) for name in ("op", "place", "cost_class", "count", "weights", "macs", "tiles")}
            | {"sources": list(row.sources)}
            for row in kind_rows(support)
        ],
        "ops": [_op_json(op) for op in support.ops],
        "faults": list(support.faults),
        "mixtures": {routing.mixture: routing.assumption for routing in support.routings},
    }


def _op_json(op: OpSupport) -> dict[str, Any]:
    return {
        "name": op.name,
        "op": op.op,
        "place": op.place,
        "cost_class": op.cost_class,
        "path": op.origin.path,
        "source": op.origin.source,
        "code": op.origin.code,
        "weights": op.weights,
        "macs": op.macs,
        "tiles": op.tiles,
        "reason": op.reason,
    }


def _row(key: tuple[str, str, str], ops: list[OpSupport]) -> KindRow:
    place, op, cost_class = key
    return KindRow(
        op=op,
        place=place,
        cost_class=cost_class,
        count=len(ops),
        weights=sum(each.weights for each in ops),
        macs=sum(each.macs for each in ops),
        tiles=sum(each.tiles for each in ops),
        sources=_unique(each.origin.source or f"'{each.origin.path}'" for each in ops),
    )


def _unique(sources: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sources))


def _sources(row: KindRow) -> str:
    more = len(row.sources) - _SOURCES
    return ", ".join(row.sources[:_SOURCES]) + (f" +{more}" if more > 0 else "")

"""The zoo on a chip: what of each network is analog, the tiles it takes, its time and energy, as a table for the docs.

    python -m aimc_compiler.report.networks docs/networks.md [NAME ...]

writes the page, or the rows of some networks alone to the terminal.
"""

import sys
from pathlib import Path

import aimc_compiler as aimc
from aimc_compiler.compiler import CompiledModel
from aimc_compiler.errors import AimcError
from aimc_compiler.graph import Rules
from aimc_compiler.records import record
from aimc_compiler.report.layers import percent
from aimc_compiler.units import print_human
from aimc_compiler.workload import DigitalOp
from aimc_compiler.zoo import NETWORKS

CHIP = "analog-fabric"
_COLUMNS = (
    "network", "parameters", "weights analog", "products analog", "tiles", "cells used", "MVMs", "latency", "interval",
    "energy",
)  # fmt: skip
_HEAD = """# The zoo on a chip

Every network of the [zoo](zoo.md) on the built-in chip `{chip}`, one sample of its published size, default rules (every
matrix analog; [mixtures](graph.md#mixtures-of-experts) timed for two experts a token, balanced). Written by
`python -m aimc_compiler.report.networks docs/networks.md`.

- *weights analog*: parameters that tiles hold, of all; the rest are embeddings, norms and biases.
- *products analog*: multiply-accumulates on tiles, of all, products of activations (attention) among them.
- *MVMs*: matrix-vector multiplications of tiles for a sample. *interval*: between samples in steady state.

"""

#: Mixtures are timed for the routing that they were trained with.
_RULES: dict[str, Rules] = {
    "mixtral_tiny": {"*.experts.*": {"experts": 4, "active": 2}},
    "mixtral_8x7b": {"*.experts.*": {"experts": 8, "active": 2}},
}


@record
class NetworkRow:
    """A network on a chip. parameters: as the zoo counts them; shares: of 1; fault: why it has no figures, or ""."""

    name: str
    parameters: int
    weights_analog: float = 0.0
    products_analog: float = 0.0
    tiles: int = 0
    utilization: float = 0.0
    mvms: int = 0
    latency_s: float = 0.0
    interval_s: float = 0.0
    energy_j: float = 0.0
    fault: str = ""


def network_row(name: str, chip: str = CHIP) -> NetworkRow:
    """Compile a network of the zoo and time it; what cannot be compiled or timed says why."""
    entry = NETWORKS[name]
    model, inputs = entry()
    try:
        compiled = aimc.compile(model, chip, inputs, batch_dim=entry.batch_dim, rules=_RULES.get(name))
        return measure_network(name, entry.parameters, compiled)
    except AimcError as error:
        return NetworkRow(name=name, parameters=entry.parameters, fault=str(error).splitlines()[0])


def measure_network(name: str, parameters: int, compiled: CompiledModel) -> NetworkRow:
    """The figures of a compiled network."""
    workload, timing, use = compiled.workload, compiled.timing, compiled.utilization
    held = {op.matrix for op in workload.analog_ops}
    products = dict.fromkeys((True, False), 0)
    for op in workload.matrix_ops:
        products[op.analog] += op.windows * workload.matrix(op.matrix).cells
    products[False] += sum(
        op.work for op in workload.ops if isinstance(op, DigitalOp) and op.cost_class == "activation_product"
    )
    return NetworkRow(
        name=name,
        parameters=parameters,
        weights_analog=sum(workload.matrix(matrix).cells for matrix in held) / parameters,
        products_analog=products[True] / max(1, sum(products.values())),
        tiles=use.tiles_used,
        utilization=use.utilization,
        mvms=timing.counts.mvms,
        latency_s=timing.latency_s,
        interval_s=timing.interval_s,
        energy_j=timing.energy_j,
    )


def row_text(row: NetworkRow) -> str:
    """A line of the table."""
    if row.fault:
        return f"| `{row.name}` | {row.parameters:,} | {row.fault} |" + " |" * (len(_COLUMNS) - 3)
    cells = (
        f"`{row.name}`", f"{row.parameters:,}", percent(row.weights_analog), percent(row.products_analog),
        f"{row.tiles:,}", percent(row.utilization), f"{row.mvms:,}", print_human(row.latency_s, "s"),
        print_human(row.interval_s, "s"), print_human(row.energy_j, "J"),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str]) -> None:
    """Write the page, or print the rows of the networks that are named."""
    path, names = Path(arguments[0]), arguments[1:]
    rows = []
    for name in names or NETWORKS:
        rows.append(row_text(network_row(name)))
        print(rows[-1], flush=True)  # noqa: T201
    if not names:
        align = "|".join(["---", *["---:"] * (len(_COLUMNS) - 1)])
        table = "\n".join([f"| {' | '.join(_COLUMNS)} |", f"|{align}|", *rows])
        path.write_text(f"{_HEAD.format(chip=CHIP)}{table}\n")


if __name__ == "__main__":
    main(sys.argv[1:])

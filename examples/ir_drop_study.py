"""Where the closed form of the IR drop holds: measured against the exact network, as tables and one figure.

python examples/ir_drop_study.py [docs/images/ir-drop.svg]

``docs/ir-drop.md`` discusses what this prints. Wires of 0.35 ohm and full weights of 5 uS unless a table varies them.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aimc_compiler.analog import MvmSettings
from aimc_compiler.analog.crossbar import Crossbar, Wires
from aimc_compiler.analog.ir_drop import drop, positions
from aimc_compiler.analog.traced_drop import attenuated, traced_loss

OHM, FULL_S, LEVELS = 0.35, 5e-6, 127
COLUMNS, VECTORS = 64, 16
LOADS = ("spread", "aligned", "grounded")


def main() -> None:
    """Print every table; draw the figure where a path is given."""
    torch.manual_seed(0)
    print_rows()
    print_places()
    print_driving()
    print_pairs()
    print_row_wires()
    if len(sys.argv) > 1:
        draw(Path(sys.argv[1]))


# What is compared


def weights(rows: int, columns: int = COLUMNS) -> Tensor:
    """(1, columns, rows) magnitudes of normal weights, sd 0.246 clipped to 1, the largest of each column 1."""
    w = (torch.randn(1, columns, rows, dtype=torch.float64) * 0.246).abs().clamp(max=1)
    return w / w.amax(dim=2, keepdim=True)


def codes(x: Tensor) -> Tensor:
    """Inputs as an 8-bit converter gives them, the largest of each vector 1: (1, 1, vectors, rows)."""
    return (x / x.amax(dim=-1, keepdim=True) * LEVELS).round()[None, None] / LEVELS


INPUTS: dict[str, Callable[[int], Tensor]] = {
    "on or off, half of the rows": lambda rows: codes((torch.rand(VECTORS, rows, dtype=torch.float64) < 0.5).double()),
    "uniform": lambda rows: codes(torch.rand(VECTORS, rows, dtype=torch.float64)),
    "half normal": lambda rows: codes(torch.randn(VECTORS, rows, dtype=torch.float64).abs()),
    "rectified normal": lambda rows: codes(torch.randn(VECTORS, rows, dtype=torch.float64).clamp(min=0)),
}


def ideal(x: Tensor, w: Tensor) -> Tensor:
    return w @ x[:, 0].transpose(1, 2)


def settings(ohm: float, load: Any = "spread") -> MvmSettings:
    return MvmSettings(ir_drop=1.0, g_ratio=1 / (ohm * FULL_S), ir_drop_model="exact", ir_drop_load=load)


def closed_loss(x: Tensor, w: Tensor, ohm: float, place: int = 0) -> Tensor:
    """(1, columns, vectors) by the closed form; place: the block's first row on its tile."""
    u = ideal(x, w)
    far = ideal(x, w * positions(w.shape[2], w.dtype, w.device))
    load = ideal(x.abs(), w.abs())
    return u - drop(u, far, load, w.shape[2], settings(ohm), torch.tensor(float(place)))


def exact_loss(x: Tensor, w: Tensor, ohm: float, place: int = 0, load: str = "spread") -> Tensor:
    """(1, columns, vectors) by solving every column for every vector (and slice of time)."""
    row = torch.full((1, w.shape[1], 1), float(place), dtype=w.dtype)
    if load == "grounded":
        return ideal(x, w - attenuated(w, row[..., 0], settings(ohm, load)))
    return traced_loss(x, w, row, settings(ohm, load))[:, 0]


def slope(found: Tensor, truth: Tensor) -> float:
    """The factor by which ``found`` exceeds ``truth``, in the mean over columns and vectors (least squares)."""
    return float((found * truth).sum() / truth.square().sum())


def share(loss: Tensor, u: Tensor) -> float:
    return float(loss.norm() / u.norm())


# The tables


def print_rows() -> None:
    """Rows and wire: the loss of the output in percent, and closed form over exact."""
    print("\nPulse-width inputs, uniform; block at the converter: loss in % of the output, (closed form / exact)")
    print(f"{'rows':>6}" + "".join(f"{f'{ohm:g} ohm':>18}" for ohm in (0.35, 1, 3.5, 10, 35)))
    for rows in (32, 64, 128, 256, 512, 1024):
        x, w = INPUTS["uniform"](rows), weights(rows)
        cells = [pair_text(x, w, ohm, 0) for ohm in (0.35, 1, 3.5, 10, 35)]
        print(f"{rows:>6}" + "".join(f"{cell:>18}" for cell in cells))


def print_places() -> None:
    """Blocks that begin further from the converter."""
    print("\nBy place on a tile of 512 rows: loss in %, (closed form / exact), (divided form / exact)")
    print(f"{'rows':>6}{'first row':>11}" + "".join(f"{f'{ohm:g} ohm':>22}" for ohm in (0.35, 1, 3.5, 10)))
    for rows, place in ((48, 464), (128, 128), (128, 384), (256, 256), (384, 128), (500, 12)):
        x, w = INPUTS["uniform"](rows), weights(rows)
        cells = [f"{pair_text(x, w, ohm, place)} {divided_text(x, w, ohm, place)}" for ohm in (0.35, 1, 3.5, 10)]
        print(f"{rows:>6}{place:>11}" + "".join(f"{cell:>22}" for cell in cells))


def pair_text(x: Tensor, w: Tensor, ohm: float, place: int) -> str:
    exact = exact_loss(x, w, ohm, place)
    return f"{100 * share(exact, ideal(x, w)):.3g} ({slope(closed_loss(x, w, ohm, place), exact):.3f})"


def divided_text(x: Tensor, w: Tensor, ohm: float, place: int) -> str:
    """The wire up to the block as a resistance in series: a quotient instead of the closed form's first order."""
    near = ideal(x, w) - closed_loss(x, w, ohm)
    divided = near / (1 + place * ohm * FULL_S * ideal(x.abs(), w.abs()))
    return f"({slope(ideal(x, w) - divided, exact_loss(x, w, ohm, place)):.3f})"


def print_driving() -> None:
    """How inputs drive the rows, and how they are distributed: exact loss over that of the closed form."""
    print("\n512 rows, 0.35 ohm: exact loss / closed form, by how inputs drive the rows")
    print(f"{'inputs':<30}{'mean':>7}{'loss %':>8}" + "".join(f"{load:>10}" for load in LOADS))
    for name, (mean, part, ratios) in driving():
        print(f"{name:<30}{mean:>7.3f}{100 * part:>8.3f}" + "".join(f"{ratio:>10.2f}" for ratio in ratios))


def driving() -> Iterator[tuple[str, tuple[float, float, list[float]]]]:
    for name, make in INPUTS.items():
        x, w = make(512), weights(512)
        closed = closed_loss(x, w, OHM)
        ratios = [slope(exact_loss(x, w, OHM, load=load), closed) for load in LOADS]
        yield name, (float(x.mean()), share(closed, ideal(x, w)), ratios)


def print_pairs() -> None:
    """Signed weights: one wire that carries the magnitudes of both polarities, or a wire a polarity."""
    print("\n512 rows, 0.35 ohm, signed weights, uniform inputs, spread: loss in % of the output")
    x, w = INPUTS["uniform"](512), weights(512)
    w = w * torch.where(torch.rand_like(w) < 0.5, -1.0, 1.0)
    u = ideal(x, w)
    one = exact_loss(x, w, OHM)
    two = exact_loss(x, w.clamp(min=0), OHM) - exact_loss(x, (-w).clamp(min=0), OHM)
    print(f"  closed form {100 * share(closed_loss(x, w, OHM), u):.3g}")
    print(f"  exact, both polarities load one wire {100 * share(one, u):.3g}")
    print(f"  exact, a wire a polarity {100 * share(two, u):.3g} ({slope(two, one):.3f} of one wire's)")


def print_row_wires() -> None:
    """What the closed form leaves out: the wires along the rows, and outlets at both ends."""
    print("\nWires of 0.35 ohm along rows too, amplitude inputs (uniform): mean loss in % of the output")
    kinds = {
        "columns": Wires(column_ohm=OHM, column_lead_ohm=0.0),
        "rows": Wires(row_ohm=OHM, row_lead_ohm=0.0),
        "both": Wires(row_ohm=OHM, column_ohm=OHM, row_lead_ohm=0.0, column_lead_ohm=0.0),
        "both, 2 drivers": Wires(row_ohm=OHM, column_ohm=OHM, row_lead_ohm=0.0, column_lead_ohm=0.0, drive="both"),
        "both, 2 + 2 ends": Wires(
            row_ohm=OHM, column_ohm=OHM, row_lead_ohm=0.0, column_lead_ohm=0.0, drive="both", sense="both"
        ),
    }
    print(f"{'array':>10}" + "".join(f"{kind:>18}" for kind in kinds))
    for size in (64, 128, 256, 512):
        g, x = FULL_S * weights(size, size)[0].T, INPUTS["uniform"](size)[0, 0, :2]
        losses = [1 - Crossbar(g, wires).solve(x).output_a.sum() / (x @ g).sum() for wires in kinds.values()]
        print(f"{size:>4} x {size:<4}" + "".join(f"{100 * float(loss):>18.4f}" for loss in losses))


# The figure


def draw(path: Path) -> None:
    """Left: closed form over exact against the loss. Right: exact over closed form, by how rows are driven."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise SystemExit("the figure needs matplotlib: pip install 'aimc_compiler[report]'") from None
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "ir-drop", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for rows, place in ((512, 0), (128, 0), (256, 256), (128, 384), (48, 464)):
        x, w = INPUTS["uniform"](rows), weights(rows)
        points = []
        for ohm in (0.1, 0.2, 0.35, 0.7, 1.5, 3, 6, 12, 25):
            exact = exact_loss(x, w, ohm, place)
            points.append((100 * share(exact, ideal(x, w)), slope(closed_loss(x, w, ohm, place), exact)))
        left.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"{rows} rows from row {place}")
    left.axhspan(0.98, 1.02, color="0.9")
    left.set(xscale="log", xlabel="exact loss, % of the output", ylabel="closed form / exact", ylim=(0.9, 1.5))
    left.legend(fontsize=8)
    for number, (name, (_, _, ratios)) in enumerate(driving()):
        right.bar([place + 0.2 * number for place in range(3)], ratios, 0.18, label=name)
    right.axhline(1, color="0.3", linewidth=0.8)
    right.set(xticks=[0.3, 1.3, 2.3], ylabel="exact / closed form")
    right.set_xticklabels(["pulses spread", "pulses aligned", "amplitudes,\nor off rows grounded"])
    right.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()

"""Accuracy over time after programming, next to the float network."""

from collections import Counter
from typing import Any

from rich.table import Table

from aimc_compiler.study import Evaluation
from aimc_compiler.study.evaluation import TimeResult
from aimc_compiler.units import print_human, print_time


def evaluation_table(result: Evaluation) -> Table:
    """One row a time: mean and spread over chips, loss against the float network, A*.

    Behind a mean, its 95 % confidence interval over chips; behind the loss, over samples, where it is a mean over them.
    """
    share = result.metric == "accuracy"
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("after programming")
    for title in (f"{result.metric} (mean)", "95 % over chips", "spread over chips", "against float", "A*"):
        table.add_column(title, justify="right")
    table.add_row("float network", _value(result.float_metric, share), "", "", "", "100.0 %")
    for row in result.times:
        table.add_row(
            print_time(row.time_s),
            _value(row.mean, share),
            "" if row.ci95 is None else f"± {_value(row.ci95[1] - row.mean, share)}",
            "one chip" if row.std is None else f"± {_value(row.std, share)}",
            _change(row.mean - result.float_metric, row, share),
            "unknown" if row.a_star is None else f"{100 * row.a_star:.1f} %",
        )
    if result.held_after_s is not None:
        table.caption = (
            f"after {print_time(result.held_after_s)}: the last measured deviations held on (extrapolate: hold)"
        )
    return table


def precision_line(result: Evaluation) -> str:
    """How operations were computed: those in ``exact`` are counted by the reason.

    >>> precision_line(evaluation)  # doctest: +SKIP
    'fast for 9 of 10 operations; exact for 1 (input noise: not built in fast)'
    """
    counts = Counter(text for _, text in result.precision)
    total = counts.total()
    if len(counts) <= 1:
        return next(iter(counts), "no analog operations")
    parts = [
        f"{text.split(' ')[0]} for {number} of {total} operations{_reason(text)}" for text, number in counts.items()
    ]
    return "; ".join(sorted(parts, reverse=True))


def _reason(text: str) -> str:
    _, bracket, reason = text.partition(" (")
    return f" ({reason}" if bracket else ""


def repeats_line(result: Evaluation) -> str:
    """What bound management adds to a sample, on the mean over chips and times; empty where nothing was repeated."""
    found = repeats_json(result)
    if not found:
        return ""
    operations = ", ".join(f"{name} {count:.3g}" for name, count in found["by_op"].items())
    energy, time = print_human(found["energy_j"], "J"), print_human(found["time_s"], "s")
    return (
        f"bound management repeats {found['mvms']:.3g} MVMs a sample ({operations}): {energy} more and, one after "
        f"another, {time} more than above"
    )


def repeats_json(result: Evaluation) -> dict[str, Any]:
    """Key ``repeats`` of ``run --json``: of one sample, on the mean over chips and times; empty without repeats."""
    repeats = result.repeats
    if repeats is None or not repeats.mvms:
        return {}
    runs = result.n_samples * result.n_chips * len(result.times)
    names = ("mvms", "dac_conversions", "adc_conversions", "energy_j", "time_s")
    a_sample: dict[str, Any] = {name: getattr(repeats, name) / runs for name in names}
    return {**a_sample, "by_op": {name: count / runs for name, count in repeats.by_op.items()}}


def evaluation_json(result: Evaluation) -> dict[str, Any]:
    """Keys of ``run --json``: metric as a fraction, times in seconds; ``repeats`` where there were any."""
    repeats = repeats_json(result)
    return {
        "metric": result.metric,
        "float_metric": result.float_metric,
        "chance": result.chance,
        "times": [
            {
                "time_s": row.time_s,
                "mean": row.mean,
                "std": row.std,
                "ci95": None if row.ci95 is None else list(row.ci95),
                "a_star": row.a_star,
                "values": list(row.values),
                **({} if row.paired is None else {"paired": {"mean": row.paired.mean, "ci95": list(row.paired.ci95)}}),
            }
            for row in result.times
        ],
        "n_chips": result.n_chips,
        "n_samples": result.n_samples,
        "seed": result.seed,
        "recalibration": result.recalibration,
        "corrections": list(result.corrections),
        "precision": dict(result.precision),
        "held_after_s": result.held_after_s,
        "entry": result.entry,
        **({"repeats": repeats} if repeats else {}),
    }


def _value(value: float, share: bool) -> str:
    return f"{100 * value:.2f} %" if share else f"{value:.5g}"


def _change(change: float, row: TimeResult, share: bool) -> str:
    """With what it is known to, where the samples say that."""
    known = "" if row.paired is None else f" ± {(100 if share else 1) * (row.paired.ci95[1] - row.paired.mean):.2f}"
    return f"{100 * change:+.2f}{known} points" if share else f"{change:+.3g}{known}"

"""Metrics on (outputs, targets): higher is better. Built-in ones know what chance gives."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aimc_compiler.errors import DataError
from aimc_compiler.records import record

MetricFunction = Callable[[Any, Any], float]


@record
class Metric:
    """function: (outputs, targets) of the whole data set to a number; chance: (targets) to the number that constant
    prediction reaches, or None where that is not known."""

    name: str
    function: MetricFunction
    chance: Callable[[Any], float] | None = None


def accuracy(outputs: Any, targets: Any) -> float:
    """Share of samples whose largest output is the target. outputs: (n, classes); targets: (n,) class indices."""
    outputs, targets = torch.as_tensor(outputs), torch.as_tensor(targets)
    if outputs.dim() != 2 or targets.shape != outputs.shape[:1]:
        raise DataError(
            f"accuracy needs outputs (n, classes) and targets (n,), not {tuple(outputs.shape)} and "
            f"{tuple(targets.shape)}: give a metric of your own, metric=lambda outputs, targets: ..."
        )
    return float((outputs.argmax(1) == targets).double().mean())


def commonest_share(targets: Any) -> float:
    """Accuracy of always naming the commonest class."""
    counts = torch.unique(torch.as_tensor(targets), return_counts=True)[1]
    return float(counts.max()) / float(counts.sum())


METRICS: dict[str, Metric] = {"accuracy": Metric(name="accuracy", function=accuracy, chance=commonest_share)}


def find_metric(metric: str | MetricFunction) -> Metric:
    """A built-in metric by name, or a callable made into one. Raises DataError on an unknown name."""
    if callable(metric):
        return Metric(name=getattr(metric, "__name__", "metric"), function=metric)
    if metric not in METRICS:
        raise DataError(f"no metric is called {metric!r}: there is {', '.join(METRICS)}, or give a function")
    return METRICS[metric]


def normalised(value: float, *, float_value: float, chance: float) -> float:
    """A* = 1 - (err - err_float) / (err_chance - err_float), for a metric that is higher where it is better.

    Rasch et al., Nat. Commun. 14, 5282 (2023), "Iso-accuracy". 1 is the float network, 0 is chance.
    """
    return 1.0 - (float_value - value) / (float_value - chance)


def join(parts: list[Any]) -> Any:
    """Outputs or targets of several batches as one: tensors are concatenated, containers by their entries."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)
    if isinstance(first, dict):
        return {key: join([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple | list):
        return tuple(join([part[index] for part in parts]) for index in range(len(first)))
    return torch.as_tensor(parts)

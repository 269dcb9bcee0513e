"""Metrics on (outputs, targets): higher is better. Built-in ones know what chance gives."""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from aimc_compiler.errors import DataError
from aimc_compiler.records import record

MetricFunction = Callable[[Any, Any], float | Tensor]


@record
class Metric:
    """function: (outputs, targets) of the whole data set to a number, or, where that is a mean over samples, to the
    scores, (n, ...); chance: (targets) to the number that constant prediction reaches, or None where that is not
    known."""

    name: str
    function: MetricFunction
    chance: Callable[[Any], float] | None = None

    def value(self, outputs: Any, targets: Any, where: str, samples: int | None = None) -> float:
        """As a number. where: what is measured, for errors; samples: how many, None: unknown. Raises DataError where it
        is no finite number, or gives other than one score a sample."""
        found = self.function(outputs, targets)
        scores = scores_in(found)
        if scores is not None and samples is not None and len(scores) != samples:
            raise DataError(
                f"metric {self.name!r} gives {len(scores)} scores for the {samples} samples of {where}: return one "
                "number, or a score for each sample"
            )
        try:
            value = float(found if scores is None else scores.mean())
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"metric {self.name!r} gives {found!r:.80} for {where}: return one number, or a score for each sample"
            ) from error
        if not math.isfinite(value):
            raise DataError(f"metric {self.name!r} is {value} for {where}: check the data and the metric")
        return value


def accuracy(outputs: Any, targets: Any) -> Tensor:
    """(n,): of each sample, whether its largest output is the target; their mean is the accuracy.

    outputs: (n, classes); targets: (n,) class indices. Raises DataError on others.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        raise DataError(
            f"accuracy needs one tensor of outputs and one of targets, not {type(outputs).__name__} and "
            f"{type(targets).__name__}: give a metric of your own, metric=lambda outputs, targets: ..."
        )
    if outputs.dim() != 2 or targets.shape != outputs.shape[:1]:
        raise DataError(
            f"accuracy needs outputs (n, classes) and targets (n,), not {tuple(outputs.shape)} and "
            f"{tuple(targets.shape)}: give a metric of your own, metric=lambda outputs, targets: ..."
        )
    unknown = outputs.isnan().any(1).nonzero()
    if len(unknown):
        raise DataError(
            f"the outputs of {len(unknown)} of {len(outputs)} samples hold NaN, first those of sample "
            f"{int(unknown[0])}: check the inputs and the network"
        )
    return outputs.argmax(1) == _classes(targets, outputs.shape[1])


def _classes(targets: Tensor, count: int) -> Tensor:
    """Targets as class indices. Raises DataError where one is none."""
    wide = targets.to(torch.float64)
    wrong = ((wide != wide.round()) | (wide < 0) | (wide >= count)).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{len(wrong)} of {len(targets)} targets are no class of the network, which has 0 to {count - 1}: "
            f"target {first} is {wide[first]:g}; give class indices"
        )
    return wide.to(torch.int64)


def commonest_share(targets: Any) -> float:
    """Accuracy of always naming the commonest class."""
    counts = torch.unique(torch.as_tensor(targets).to(torch.float64), return_counts=True)[1]
    return float(counts.max()) / float(counts.sum())


METRICS: dict[str, Metric] = {"accuracy": Metric(name="accuracy", function=accuracy, chance=commonest_share)}


def scores_in(found: Any) -> Tensor | None:
    """(n,): what a metric says of each sample, float64; None where it gave one number."""
    if not isinstance(found, Tensor) or found.numel() < 2 or not found.dim():
        return None
    return found.double().reshape(len(found), -1).mean(1)


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


def join_targets(parts: list[Any]) -> Any:
    """Targets of several batches as one: tensors and arrays along their first dimension, containers by their entries.

    Numbers become a tensor, lists of words one list; what is none of these comes as it is, in a list of one entry a
    batch.
    """
    first = parts[0]
    if isinstance(first, np.ndarray):
        return join_targets([torch.from_numpy(part) for part in parts])
    if isinstance(first, Tensor):
        return torch.cat(parts) if first.dim() else torch.stack(parts)
    if isinstance(first, dict):
        return {key: join_targets([part[key] for part in parts]) for key in first}
    if isinstance(first, list) and all(isinstance(entry, Real) for part in parts for entry in part):
        return torch.tensor([entry for part in parts for entry in part])
    if isinstance(first, list) and all(isinstance(entry, str) for part in parts for entry in part):
        return [entry for part in parts for entry in part]
    if isinstance(first, tuple | list):
        return tuple(join_targets([part[index] for part in parts]) for index in range(len(first)))
    return torch.tensor(parts) if isinstance(first, Real) else list(parts)


def join_outputs(parts: list[Any], dims: Sequence[int | None] | None) -> Any:
    """Outputs of several batches as one, nested like the network's own.

    dims: the batch dimension of each tensor, None for one that has none and so is the same in every batch; None where
    each batch is one sample: along the first dimension.
    """
    flat = [pytree.tree_flatten(part) for part in parts]
    columns = list(zip(*(leaves for leaves, _ in flat), strict=True))
    axes = [0] * len(columns) if dims is None else dims
    return pytree.tree_unflatten([_along(column, axis) for column, axis in zip(columns, axes, strict=True)], flat[0][1])


def _along(column: tuple[Any, ...], axis: int | None) -> Any:
    if axis is None or not isinstance(column[0], Tensor):
        return column[0]
    return torch.cat(column, axis) if column[0].dim() else torch.stack(column)

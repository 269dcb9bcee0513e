"""What is trained: the network, its data and how it learns, as one record for ``train`` and ``aimc train``."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from aimc_compiler.errors import TrainingError
from aimc_compiler.graph import Rules
from aimc_compiler.metrics import METRICS, MetricFunction, find_metric, join_outputs, join_targets
from aimc_compiler.records import record
from aimc_compiler.rng import stream_key

Loss = Callable[[Any, Any], Tensor]


@record
class Task:
    """network: a float network, trained or not, or a function that makes it. train, validation: a pair (inputs,
    targets) of tensors, whose samples are shuffled anew in each epoch and come ``batch_size`` at a time, or batches
    (inputs, targets) that can be gone through again: a list, which keeps its order, or a torch DataLoader. inputs: a
    tensor, a tuple of positional inputs or a dict of keyword inputs. loss: (outputs, targets) to a scalar; metric:
    "accuracy" or (outputs, targets) of the whole validation data to a number, higher is better, or to the scores of all
    samples, (n, ...), whose mean it is; chance: that of a network that knows nothing, for A*.

    optimiser: parameter groups (of ``parameter_groups``) to an optimiser; scheduler: (optimiser, steps in all) to a
    learning-rate scheduler that is stepped after each mini-batch, or None. weight_decay, range_rate: as of
    ``parameter_groups``; clip_gradient: the largest norm of all gradients together, None: any, but 1 while batch norms
    are frozen (``Recipe.freeze_norms``); infinity: any.

    rules, example_inputs: as of ``prepare_hwa``. batch_dim: the dimension of every input that counts samples; samples
    that are to be shuffled lie along the first.
    """

    network: nn.Module | Callable[[], nn.Module]
    train: Any
    validation: Any
    optimiser: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    loss: Loss = F.cross_entropy
    metric: str | MetricFunction = "accuracy"
    chance: float | None = None
    scheduler: Callable[[torch.optim.Optimizer, int], Any] | None = None
    epochs: int = 10
    batch_size: int = 100
    weight_decay: float = 0.0
    range_rate: float | None = None
    clip_gradient: float | None = None
    rules: Rules | None = None
    example_inputs: Sequence[Any] | None = None
    batch_dim: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} of the task is {getattr(self, name)}: give 1 or more")
        if isinstance(self.metric, str) and self.metric not in METRICS:
            known = ", ".join(map(repr, METRICS))
            raise TrainingError(f"metric of the task is {self.metric!r}: give {known} or a function")

    def made_network(self, seed: int) -> nn.Module:
        """The network; one that a function makes has its first weights by the seed. Raises TrainingError."""
        if isinstance(self.network, nn.Module):
            return self.network
        torch.manual_seed(stream_key(seed, "training", "network"))
        made = self.network()
        if not isinstance(made, nn.Module):
            raise TrainingError(f"network of the task makes a {type(made).__name__}: return a torch.nn.Module")
        return made

    def measured(self, outputs: list[Any], targets: list[Any], where: str) -> float:
        """The metric of all batches together; where: of what, for errors. Raises DataError where it gives none."""
        joined = join_outputs(outputs, None), join_targets(targets)
        return find_metric(self.metric).value(*joined, where)


class Data:
    """Batches of training or validation data in an order that follows from seed and epoch alone.

    name: what it is called in errors. Raises TrainingError where it cannot be gone through again and again.
    """

    def __init__(self, source: Any, batch_size: int, name: str) -> None:
        self._source, self._size, self._name = source, batch_size, name
        self._tensors = isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], Tensor)
        self.samples = 0
        if self._tensors:
            self.samples = _samples(source, name)
            self.batches = -(-self.samples // batch_size)
            return
        if not hasattr(source, "__len__") or not hasattr(source, "__iter__"):
            raise TrainingError(
                f"{name} data of the task is a {type(source).__name__}: give a pair (inputs, targets) of tensors, a "
                "list of batches, or a DataLoader, which has a length and can be gone through again"
            )
        self.batches = len(source)
        if not self.batches:
            raise TrainingError(f"{name} data of the task is empty: give at least one batch of (inputs, targets)")

    def in_order(self) -> Iterator[tuple[Any, Any]]:
        """All batches as they stand."""
        if self._tensors:
            yield from (self._chosen(torch.arange(first, last)) for first, last in self._bounds())
        else:
            yield from map(self._pair, self._source)

    def shuffled(self, seed: int, epoch: int) -> Iterator[tuple[Any, Any]]:
        """The batches of an epoch. Those of a DataLoader follow torch's generator and its own, which are seeded."""
        key = stream_key(seed, "training", "order", epoch)
        if self._tensors:
            order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(key))
            yield from (self._chosen(order[first:last]) for first, last in self._bounds())
            return
        torch.manual_seed(key)
        for holder in (self._source, getattr(self._source, "sampler", None)):
            generator = getattr(holder, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(key)
            set_epoch = getattr(holder, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)
        yield from map(self._pair, self._source)

    def _bounds(self) -> Iterator[tuple[int, int]]:
        return ((first, min(first + self._size, self.samples)) for first in range(0, self.samples, self._size))

    def _chosen(self, places: Tensor) -> tuple[Any, Any]:
        inputs, targets = self._source
        return pytree.tree_map(lambda part: part[places], inputs), targets[places]

    def _pair(self, batch: Any) -> tuple[Any, Any]:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TrainingError(
                f"a batch of the {self._name} data is a {type(batch).__name__}, no pair (inputs, targets): give both"
            )
        return batch[0], batch[1]


def _samples(source: tuple[Any, Tensor], name: str) -> int:
    """How many samples a pair of tensors holds."""
    inputs, targets = source
    counts = [len(leaf) for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    if not counts or any(count != len(targets) for count in counts):
        raise TrainingError(
            f"{name} data of the task has {len(targets)} targets and inputs of {counts or 'no'} samples: give tensors "
            "of equal length"
        )
    if not len(targets):
        raise TrainingError(f"{name} data of the task is empty: give at least one sample")
    return len(targets)

"""Which mini-batch it is: what all matrices of a network in training share."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from aimc_compiler.errors import TrainingError
from aimc_compiler.records import record
from aimc_compiler.training.scratch import Scratch

#: Mini-batches whose backward passes may be outstanding at once, where checkpointing makes values again.
OUTSTANDING = 64


@record
class MiniBatch:
    """serial: of no other; seed: names its weight noise; calls: seeds of its calls of matrices, as they come."""

    serial: int
    seed: int
    calls: set[int] = field(default_factory=set)


@dataclass
class Met:
    """What a matrix meets in a mini-batch. scales: (row blocks, groups, columns), s; before: mini-batches that it had
    before; seed: of the mini-batch; due: whether ``scales`` are still to be taken from the weights; ranges: its input
    ranges where they follow the inputs, (groups, row blocks), None where they are those of the optimiser."""

    scales: Tensor
    before: int = 0
    seed: int = 0
    due: bool = False
    ranges: Tensor | None = None


class Batches:
    """Counts mini-batches and gives each a seed, drawn from torch's own generator, that names its weight noise.

    Gradient checkpointing calls parts of a network again, or all of it, in the backward pass, with the generator's
    state of then. What is drawn from it tells which mini-batch it was, whose noise is met again: also where others have
    begun since. number: how many the network has had; scratch: what the passes of all matrices share.
    """

    def __init__(self) -> None:
        self.number = self._serial = 0
        self.scratch = Scratch()
        self._now: MiniBatch | None = None
        self._outstanding: deque[MiniBatch] = deque(maxlen=OUTSTANDING)
        self._endings: list[Callable[[], None]] = []

    def __getstate__(self) -> dict[str, Any]:
        """A copy is within no mini-batch, and none of its backward passes is to come."""
        return vars(self) | {"_now": None, "_outstanding": deque(maxlen=OUTSTANDING), "_endings": []}

    @property
    def under_way(self) -> bool:
        """Whether it is within a mini-batch."""
        return self._now is not None

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Within it is the next mini-batch."""
        self.number += 1
        self._serial += 1
        self._now = MiniBatch(serial=self._serial, seed=fresh_seed())
        self._outstanding.append(self._now)
        try:
            yield
            for ending in self._endings:
                ending()
        finally:
            self._now, self._endings = None, []

    def begin_again(self) -> None:
        """Where a call is made again: draw what ``begun`` drew, if it was called there before."""
        state = torch.get_rng_state()
        seed = fresh_seed()
        if all(batch.seed != seed for batch in self._outstanding):
            torch.set_rng_state(state)

    def at_end(self, ending: Callable[[], None]) -> None:
        """Call this when the mini-batch that is under way ends without an error."""
        self._endings.append(ending)

    def of_call(self, call: int, name: str) -> MiniBatch:
        """The mini-batch of a matrix's call. call: its seed; name: of the matrix. Raises TrainingError where it is
        within none."""
        if made_again():
            return self._found(call, name)
        if self._now is None:
            raise TrainingError(
                f"{name!r} was called in training mode outside of a mini-batch, which is a call of the whole prepared "
                "network: call that, or put calls of its parts and methods within "
                "`with aimc_compiler.training.mini_batch(network):`"
            )
        self._now.calls.add(call)
        return self._now

    def _found(self, call: int, name: str) -> MiniBatch:
        for batch in reversed(self._outstanding):
            if call in batch.calls:
                return batch
        raise TrainingError(
            f"{name!r} was called in a backward pass with random numbers that no call of the last {OUTSTANDING} "
            "mini-batches had: checkpoint with preserve_rng_state=True, and go backward before so many more begin"
        )


def made_again() -> bool:
    """Whether this is a call by gradient checkpointing, in a backward pass: its values have been seen already."""
    return torch._C._current_graph_task_id() >= 0


def fresh_seed() -> int:
    """From torch's generator on the CPU, so that ``torch.manual_seed`` and checkpoints of its state reach it."""
    return int(torch.randint(2**62, (), dtype=torch.int64))


def over_processes(values: Tensor) -> Tensor:
    """The mean over all processes that train together."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()

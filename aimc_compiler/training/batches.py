"""Which mini-batch it is: what all matrices of a network in training share."""

import torch
from torch import Tensor

from aimc_compiler.training.scratch import Scratch


class Batches:
    """Counts mini-batches and gives each a seed, drawn from torch's own generator, that names its weight noise.

    A mini-batch is one call of the whole network in training mode: gradient checkpointing, which calls parts again or
    all of it, meets the same noise again. scratch: what the passes of all matrices share.
    """

    def __init__(self) -> None:
        self.number = 0
        self.seed = 0
        self.scratch = Scratch()

    def begin(self) -> None:
        """The next mini-batch; or, called by a backward pass, one whose values are made again, by the generator's state
        of then."""
        self.seed = fresh_seed()
        if not made_again():
            self.number += 1


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

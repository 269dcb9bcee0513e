"""Parameter groups of a network in training: what is learned beside the weights must not decay towards 0."""

from typing import Any

from torch import nn

from aimc_compiler.errors import TrainingError
from aimc_compiler.training.matrix import TrainedMatrix


def parameter_groups(
    model: nn.Module, weight_decay: float = 0.0, range_rate: float | None = None
) -> list[dict[str, Any]]:
    """Groups for an optimiser: "network", and "tiles" where the network is prepared for hardware-aware training.

    weight_decay: of the network's own parameters. Input ranges, column gains and bounds have none: decay would pull
    them towards 0, while the rule of a range has its own (``Recipe.range_decay``). range_rate: their learning rate;
    None: the optimiser's. Frozen parameters are left out. Raises TrainingError where nothing is left.

    >>> [group["name"] for group in parameter_groups(nn.Linear(2, 1), weight_decay=0.01)]
    ['network']
    """
    beside = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, TrainedMatrix)
        for parameter in module.parameters(recurse=False)
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise TrainingError(
            f"{type(model).__name__} has no parameter that requires a gradient: nothing is to be trained"
        )
    network = [parameter for parameter in trained if id(parameter) not in beside]
    tiles = [parameter for parameter in trained if id(parameter) in beside]
    groups: list[dict[str, Any]] = []
    if network:
        groups.append({"name": "network", "params": network, "weight_decay": weight_decay})
    if tiles:
        rate = {} if range_rate is None else {"lr": range_rate}
        groups.append({"name": "tiles", "params": tiles, "weight_decay": 0.0, **rate})
    return groups

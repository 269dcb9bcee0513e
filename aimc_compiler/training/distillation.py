"""Learning from the float network: its outputs as targets beside the labels.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531 (2015), section 2.
"""

import torch.nn.functional as F
from torch import Tensor

from aimc_compiler.errors import TrainingError


def distillation_loss(outputs: Tensor, teacher: Tensor, loss: Tensor, share: float, temperature: float) -> Tensor:
    """``(1 - share) loss + share T^2 KL(teacher || outputs)``, both softened by the temperature T.

    outputs, teacher: (..., classes), logits; loss: that of the labels, a scalar; share: ``Recipe.distillation``. The
    teacher gets no gradient. Raises TrainingError where the two differ in shape.

    >>> import torch
    >>> logits = torch.tensor([[1.0, 2.0]])
    >>> distillation_loss(logits, logits, torch.tensor(3.0), share=0.5, temperature=2.0)
    tensor(1.5000)
    """
    if outputs.shape != teacher.shape:
        raise TrainingError(
            f"the network's outputs are {tuple(outputs.shape)}, the teacher's {tuple(teacher.shape)}: distillation "
            "needs logits of the same classes"
        )
    soft = F.log_softmax(outputs.flatten(0, -2) / temperature, -1)
    target = F.log_softmax(teacher.detach().flatten(0, -2) / temperature, -1)
    divergence = F.kl_div(soft, target, reduction="batchmean", log_target=True)
    return (1 - share) * loss + share * temperature**2 * divergence

"""Batch norm in evaluation mode, folded into the matrix operation whose output it alone reads.

The norm is ``(y - mean) / sqrt(var + eps) * gamma + beta`` per output: a multiplier and an offset. The weight is left
as it is, since what a chip is programmed with is scaled by column anyway, and the raw statistics stay on the module,
so that they can be measured again on an aged chip (Rasch et al., Nat. Commun. 14, 5282 (2023), Methods). A norm that
follows anything else stays a digital operation.
"""

from typing import Any

from torch import fx, nn

from aimc_compiler.graph.extract import Constants
from aimc_compiler.graph.ir import op_name
from aimc_compiler.graph.matrix import MatrixModule, NormStatistics
from aimc_compiler.graph.values import tensor_of


def fold_batch_norms(root: nn.Module, graph: fx.Graph) -> int:
    """Fold every batch norm that can be, and return how many; values must have been recorded."""
    constants, folded = Constants(root), 0
    for node in list(graph.nodes):
        if node.op != "call_function" or op_name(node) != "batch_norm":
            continue
        source = node.args[0]
        module = _foldable(root, source)
        statistics = _statistics(constants, node)
        if module is None or statistics is None:
            continue
        module.fold_norm(statistics)
        node.replace_all_uses_with(source)
        graph.erase_node(node)
        folded += 1
    return folded


def _foldable(root: nn.Module, source: Any) -> MatrixModule | None:
    """The matrix operation that ``source`` calls, if the norm is its only reader and runs along its outputs."""
    if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
        return None
    module = root.get_submodule(str(source.target))
    value = tensor_of(source)
    if not isinstance(module, MatrixModule) or module.norm is not None or value is None:
        return None
    # Batch norm runs along dimension 1: the outputs of a batch of vectors or of images, not of sequences.
    return module if len(value.shape) == module.spatial + 2 else None


def _statistics(constants: Constants, node: fx.Node) -> NormStatistics | None:
    gamma, beta, mean, var = (constants.find(argument) for argument in node.args[1:5])
    eps = node.args[7]
    if (
        mean is None
        or var is None
        or (gamma is None) != (node.args[1] is None)
        or (beta is None) != (node.args[2] is None)
    ):
        return None
    assert isinstance(eps, float)
    return NormStatistics(mean[0], var[0], None if gamma is None else gamma[0], None if beta is None else beta[0], eps)

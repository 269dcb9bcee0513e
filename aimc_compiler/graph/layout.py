"""Which layout an operation wants of its inputs: what decides how network inputs and flattened tensors are cut."""

from collections.abc import Mapping

from torch import fx

from aimc_compiler.graph.access import Layout
from aimc_compiler.graph.ir import op_name
from aimc_compiler.graph.values import TensorValue, tensor_of

#: Spatial dimensions of operations on channels-first images and sequences.
SPATIAL = {
    "conv1d": 1,
    "conv2d": 2,
    "conv3d": 3,
    "conv_transpose1d": 1,
    "conv_transpose2d": 2,
    "conv_transpose3d": 3,
    "max_pool3d": 3,
    "max_pool3d_with_indices": 3,
    "avg_pool3d": 3,
    "adaptive_avg_pool3d": 3,
    "adaptive_max_pool3d": 3,
    "upsample_nearest3d": 3,
    "upsample_trilinear3d": 3,
    "max_pool1d": 1,
    "max_pool2d": 2,
    "max_pool2d_with_indices": 2,
    "avg_pool1d": 1,
    "avg_pool2d": 2,
    "adaptive_avg_pool1d": 1,
    "adaptive_avg_pool2d": 2,
    "adaptive_max_pool1d": 1,
    "adaptive_max_pool2d": 2,
    "upsample_nearest1d": 1,
    "upsample_linear1d": 1,
    "upsample_nearest2d": 2,
    "upsample_bilinear2d": 2,
    "upsample_bicubic2d": 2,
    "_upsample_nearest_exact1d": 1,
    "_upsample_nearest_exact2d": 2,
    "_upsample_nearest_exact3d": 3,
    "_upsample_bilinear2d_aa": 2,
    "_upsample_bicubic2d_aa": 2,
}
_CHANNELS_SECOND = frozenset(["batch_norm", "group_norm", "instance_norm", "prelu"])
_FEATURES_LAST = frozenset(["linear", "layer_norm", "rms_norm", "matmul", "bmm", "mm"])


def natural_layout(name: str, value: TensorValue) -> Layout:
    """The layout that an operation of this name (or kind of matrix) gives meaning to; None where any will do."""
    rank = len(value.shape)
    if name in SPATIAL and rank > SPATIAL[name]:
        return rank - SPATIAL[name] - 1
    if name in _CHANNELS_SECOND and rank >= 2:
        return 1
    if name in _FEATURES_LAST and rank >= 1:
        return rank - 1
    return None


def wanted_layout(node: fx.Node, kinds: Mapping[fx.Node, str]) -> Layout:
    """The layout that the first reader of a tensor with a preference wants, looked for through operations that keep
    its shape; None where no reader has one.

    kinds: the matrix kind of each matrix operation.
    """
    value = tensor_of(node)
    queue, seen = [node], {node}
    while queue and value is not None:
        for reader in queue.pop(0).users:
            layout = natural_layout(kinds.get(reader) or _name(reader), value)
            if layout is not None:
                return layout
            same_shape = tensor_of(reader)
            if same_shape is not None and same_shape.shape == value.shape and reader not in seen:
                seen.add(reader)
                queue.append(reader)
    return None


def _name(node: fx.Node) -> str:
    return op_name(node) if node.op == "call_function" else ""

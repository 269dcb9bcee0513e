"""The table of operations: what each ATen operation is priced as, and how its work is counted.

Matrix operations (linear, convolutions) are not in it: they become ``MatrixModule`` in the normal form. Anything
torch can run runs here too; the table says what it *costs*. An operation without an entry is an error.
"""

from typing import Literal

from aimc_compiler.chip.costs import FREE, CostClass
from aimc_compiler.records import record

#: What the rate of a class counts for this operation: elements written, elements read, elements written times the
#: places of the pooling kernel, or multiply-accumulates.
Count = Literal["output", "input", "kernel", "macs", "none"]


@record
class OpCost:
    """cost_class: a name of ``aimc_compiler.chip.COST_CLASSES`` or "free"; count: how work is counted."""

    cost_class: str
    count: Count


def _entries(cost_class: CostClass, count: Count, names: str) -> dict[str, OpCost]:
    return {name: OpCost(cost_class=cost_class, count=count) for name in names.split()}


def _free(names: str) -> dict[str, OpCost]:
    return {name: OpCost(cost_class=FREE, count="none") for name in names.split()}


_ELEMENTWISE = """
    relu relu6 hardtanh leaky_relu prelu hardswish hardsigmoid threshold add sub rsub mul div neg abs sign
    addcmul addcdiv lerp clamp clamp_min clamp_max maximum minimum where masked_fill fmod remainder square floor ceil
    round trunc eq ne lt le gt ge logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not
    __and__ __or__ __xor__ isnan isinf isfinite nan_to_num hardshrink softshrink to _to_copy type_as float_power
    reciprocal floor_divide multiply divide true_divide subtract absolute negative clip sgn frac fmax fmin hypot diff
    greater greater_equal less less_equal not_equal bitwise_xor bitwise_left_shift bitwise_right_shift outer ger cross
    linalg_cross isin isposinf isneginf masked_scatter
"""
_TRANSCENDENTAL = """
    elu selu celu gelu silu sigmoid log_sigmoid tanh softplus mish exp expm1 log log1p log2 log10 sqrt rsqrt pow sin cos
    tan atan atan2 asin acos sinh cosh erf erfc logit glu exp2 asinh acosh atanh logaddexp logaddexp2 xlogy sinc erfinv
    lgamma digamma arctan arctan2 arcsin arccos
"""
_REDUCTION = """
    mean sum prod amax amin max min argmax argmin std var any all norm linalg_vector_norm linalg_norm logsumexp cumsum
    cumprod cummax cummin topk sort argsort median aminmax var_mean std_mean nansum nanmean count_nonzero kthvalue
    cosine_similarity pairwise_distance logcumsumexp frobenius_norm nanmedian trapezoid
"""
#: Pools with a kernel that slides, and pools to a given size.
POOLS = (
    *("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices"),
    *("avg_pool1d", "avg_pool2d", "avg_pool3d"),
)
ADAPTIVE_POOLS = tuple(f"adaptive_{kind}_pool{count}d" for kind in ("avg", "max") for count in (1, 2, 3))
_VIEWS = """
    view reshape flatten unflatten unsqueeze squeeze permute transpose t numpy_T mT expand expand_as view_as
    reshape_as slice select chunk split split_with_sizes unbind narrow movedim swapaxes tensor_split contiguous clone
    alias detach broadcast_to swapdims moveaxis adjoint mH positive expand_copy empty_like new_empty diagonal
    unfold zeros_like ones_like full_like new_zeros new_ones new_full dropout
"""
_MOVEMENT = """
    cat stack hstack vstack pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d
    upsample_bicubic2d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa pixel_shuffle
    pixel_unshuffle channel_shuffle flip fliplr flipud rot90 roll im2col max_unpool2d scatter fill repeat
    repeat_interleave tile copy slice_scatter select_scatter masked_select tril triu _upsample_nearest_exact3d
    reflection_pad3d replication_pad3d _pad_circular concat concatenate column_stack dstack max_unpool3d
    index_put index_copy index_fill index_add scatter_add scatter_reduce col2im
"""

OP_COSTS: dict[str, OpCost] = {
    **_entries("elementwise", "output", _ELEMENTWISE),
    **_entries("transcendental", "output", _TRANSCENDENTAL),
    **_entries("reduction", "input", _REDUCTION),
    **_entries("softmax", "output", "softmax log_softmax _softmax _log_softmax"),
    **_entries("normalisation", "output", "batch_norm layer_norm group_norm instance_norm rms_norm"),
    **_entries("elementwise", "input", "conv_transpose1d conv_transpose2d conv_transpose3d"),
    **_entries("pooling", "kernel", " ".join(POOLS)),
    **_entries("pooling", "input", " ".join(ADAPTIVE_POOLS)),
    **_entries("activation_product", "macs", "matmul bmm mm dot mv addmm baddbmm"),
    **_entries(
        "lookup",
        "output",
        "embedding one_hot gather index_select index take_along_dim grid_sampler searchsorted bucketize",
    ),
    **_entries("movement", "output", _MOVEMENT),
    **_free(_VIEWS),
}

#: Matrix operations that are known, but that mapping cannot place yet.
NOT_MAPPED: frozenset[str] = frozenset(["convolution"])
#: Operations that are several priced ones at once: splitting them is not built yet.
NOT_SPLIT: frozenset[str] = frozenset(["scaled_dot_product_attention", "einsum", "cdist", "baddbmm_"])

"""Every kind of layer that can be trained for tiles, by torch's own class."""

from typing import Any

from torch import nn

from aimc_compiler.training.attention import TrainedMultiheadAttention
from aimc_compiler.training.layers import TrainedConv1d, TrainedConv2d, TrainedConv3d, TrainedLinear
from aimc_compiler.training.recurrent import (
    TrainedGRU,
    TrainedGRUCell,
    TrainedLSTM,
    TrainedLSTMCell,
    TrainedRNN,
    TrainedRNNCell,
)
from aimc_compiler.training.transposed import TRANSPOSED

LAYERS: dict[type[nn.Module], Any] = {
    layer.plain: layer
    for layer in (
        TrainedLinear,
        TrainedConv1d,
        TrainedConv2d,
        TrainedConv3d,
        TrainedLSTM,
        TrainedGRU,
        TrainedRNN,
        TrainedLSTMCell,
        TrainedGRUCell,
        TrainedRNNCell,
        TrainedMultiheadAttention,
        *TRANSPOSED,
    )
}

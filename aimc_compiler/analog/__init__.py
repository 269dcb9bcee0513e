"""The analog part: converters, crossbar products, noise, devices and their ageing, drift compensation.

``docs/physics.md`` is the model in one place, with its equations and sources.
"""

from aimc_compiler.analog.compensation import compensation_factor, one_hot_outputs
from aimc_compiler.analog.contraction import Contraction
from aimc_compiler.analog.converter import adc, dac
from aimc_compiler.analog.crossbar import Crossbar, CrossbarSolution, Wires
from aimc_compiler.analog.effects import EFFECT_FUNCTIONS
from aimc_compiler.analog.grid import RowBlock, row_blocks
from aimc_compiler.analog.matrix import MatrixOnTiles
from aimc_compiler.analog.matrix_state import MatrixState
from aimc_compiler.analog.mvm import BlockWeights, block_weights, mvm
from aimc_compiler.analog.noise import Draw
from aimc_compiler.analog.ranges import RangeObserver
from aimc_compiler.analog.readout import read_columns
from aimc_compiler.analog.row_block import BlockProduct, Stored, block_products, multiply_block
from aimc_compiler.analog.settings import MvmSettings, require_built
from aimc_compiler.analog.state import PieceDevices, Streams
from aimc_compiler.analog.straight_through import straight_through

__all__ = [
    "EFFECT_FUNCTIONS",
    "BlockProduct",
    "BlockWeights",
    "Contraction",
    "Crossbar",
    "CrossbarSolution",
    "Draw",
    "MatrixOnTiles",
    "MatrixState",
    "MvmSettings",
    "PieceDevices",
    "RangeObserver",
    "RowBlock",
    "Stored",
    "Streams",
    "Wires",
    "adc",
    "block_products",
    "block_weights",
    "compensation_factor",
    "dac",
    "multiply_block",
    "mvm",
    "one_hot_outputs",
    "read_columns",
    "require_built",
    "row_blocks",
    "straight_through",
]

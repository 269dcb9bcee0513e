"""The compiled cell of a long short-term memory (Hochreiter and Schmidhuber, Neural Comput. 9, 1735 (1997))."""

import numpy as np
import numpy.typing as npt

from aimc_compiler.analog.fast.aging import exponential
from aimc_compiler.rng.philox import compiled, inlined

Floats = npt.NDArray[np.float32]

_ONE, _TWO, _LARGEST = np.float32(1), np.float32(2), np.float32(40)


@inlined
def sigmoid(x: np.float32) -> np.float32:
    """1 / (1 + e^-x), to 1e-7 of its value."""
    return _ONE / (_ONE + exponential(min(max(-x, -_LARGEST), _LARGEST)))


@inlined
def tanh(x: np.float32) -> np.float32:
    """The hyperbolic tangent, to 1e-7 (not of its value: near 0 it is a difference)."""
    return _TWO * sigmoid(_TWO * x) - _ONE


@compiled
def step_cells(y: Floats, h: Floats, c: Floats, inputs: Floats, recurrent: Floats, step: int, first: int) -> None:
    """One step of some samples: ``c <- f c + i g``, ``h = o tanh(c)``, gates in the order i, f, g, o.

    y: (samples, steps, units), all outputs; h, c: (samples, units); inputs: (samples, steps, 4 units), the input
    products with their biases; recurrent: (count, 4 units), of the samples from ``first`` on.
    """
    units = h.shape[1]
    for k in range(recurrent.shape[0]):
        sample = first + k
        given, fed = inputs[sample, step], recurrent[k]
        given_f, given_g, given_o = given[units:], given[2 * units :], given[3 * units :]
        fed_f, fed_g, fed_o = fed[units:], fed[2 * units :], fed[3 * units :]
        cell, hidden, out = c[sample], h[sample], y[sample, step]
        for j in range(units):
            kept = sigmoid(given_f[j] + fed_f[j]) * cell[j]
            cell[j] = kept + sigmoid(given[j] + fed[j]) * tanh(given_g[j] + fed_g[j])
        for j in range(units):
            hidden[j] = sigmoid(given_o[j] + fed_o[j]) * tanh(cell[j])
        for j in range(units):
            out[j] = hidden[j]

"""Compiled passes of a recurrent loop in training: what stands between the products of two steps, one pass each way.

Forward, a step is noise, output converter, cell and input converter of the next step; backward, the cell and the output
converter, and behind the product the input converter. A step of a small layer takes 100 us, of which torch's twenty
operations would be half. Gates lie as torch keeps them; no value depends on how rows are shared out to threads.

Arrays are of (batch, steps, width) outside, as the network has them, and of (steps, batch, width) inside, so that a
step's are contiguous for the products. ``steps`` may be 1 where backward wants nothing: each step then writes over the
one before.
"""

import numpy as np
import numpy.typing as npt

from aimc_compiler.analog.fast.cell import sigmoid, tanh
from aimc_compiler.rng.in_cache import normals_of_columns
from aimc_compiler.rng.philox import compiled, inlined
from aimc_compiler.training.kernels import add_noise, convert, half, widen

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.uint16]
Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

_ONE, _ZERO = np.float32(1), np.float32(0)
#: Kinds of cells, as kernels take them.
LSTM, GRU, RNN_TANH, RNN_RELU = 0, 1, 2, 3
#: Rows of scratch, each of the gates' width + 8, that ``step_forward`` works in.
SCRATCH = 12


@compiled
def drive_state(
    codes: Floats, squares: Floats, halves: Halves, h: Floats, ranges: Floats, step: np.float32, first: int,
    last: int,
) -> None:  # fmt: skip
    """Rows ``first`` to ``last`` of a state as codes, and their squares where there is room for them.

    codes, h: (batch, units); squares: the same or empty, halves: the same in bfloat16 or empty; ranges: (units,);
    step: of the input converter, 0 for none.
    """
    for row in range(first, last):
        _drive(codes[row], h[row], ranges, step)
        _square(codes[row], squares, halves, row)


@inlined
def _drive(codes: Floats, h: Floats, ranges: Floats, step: np.float32) -> None:
    if step > _ZERO:
        for j in range(h.shape[0]):
            code = np.float32(np.rint(min(max(h[j] / ranges[j], -_ONE), _ONE) / step)) * step
            codes[j] = min(max(code, -_ONE), _ONE)
    else:
        for j in range(h.shape[0]):
            codes[j] = min(max(h[j] / ranges[j], -_ONE), _ONE)


@inlined
def _square(codes: Floats, squares: Floats, halves: Halves, row: int) -> None:
    if squares.shape[0] > 0:
        second = squares[row]
        for j in range(codes.shape[0]):
            second[j] = codes[j] * codes[j]
    if halves.shape[0] > 0:
        made = halves[row]
        for j in range(codes.shape[0]):
            made[j] = half(codes[j] * codes[j])


@compiled
def step_forward(
    kind: int, t: int, given: Floats, bias: Floats, y: Floats, c: Floats, acts: Floats, h: Floats, u: Floats,
    power: Floats, power_halves: Halves, kept: Bytes, inverse: Floats, factor: Floats, figures: Floats, keys: Words,
    first: int, last: int, scratch: Floats,
) -> None:  # fmt: skip
    """Step ``t`` of rows ``first`` to ``last``, from the products of its codes to its state.

    given: (batch, steps, gates), the input products; bias: (gates,); y: (batch, steps, units), filled; c: (steps + 1,
    batch, units) of an LSTM, step 0 the initial state, filled; acts: (steps, batch, 4 units), filled: of an LSTM i, f,
    g, o, of a GRU r, z, n and the state's part of n; h: (batch, units), the initial state; u: (row blocks, batch,
    gates), products; power: the same or empty, power_halves: the same in bfloat16 or empty; kept: (row blocks, steps,
    batch, gates), filled: 1 where the converter did not clip; inverse, factor: (row blocks, gates), 1 over the columns'
    scales and scales times range; figures: variance of read noise and of output noise, the output converter's step (0
    for none) and bound; keys: (row blocks,), of the normals, whose call is the step and whose sample the row.
    """
    width = given.shape[2]
    planes, words = scratch[0:4], scratch[4:8].view(np.uint32)
    normals, codes, part, fed = scratch[8], scratch[9, :width], scratch[10, :width], scratch[11, :width]
    read, output, step, bound = figures[0], figures[1], figures[2], figures[3]
    normals[:width] = _ZERO
    for row in range(first, last):
        fed[:] = bias
        for block in range(u.shape[0]):
            if read > _ZERO or output > _ZERO:
                normals_of_columns(
                    normals, planes, words, 0, (width + 3) >> 2, np.uint64(t), np.uint64(row), keys[block]
                )
            side = u[block, row]
            if power_halves.shape[0] > 0:
                side = part
                widen(part, power_halves[block, row])
            elif power.shape[0] > 0:
                side = power[block, row]
            add_noise(codes, u[block, row], side, inverse[block], normals, read, output)
            convert(part, kept[block, t % kept.shape[1], row], codes, factor[block], step, bound)
            for k in range(width):
                fed[k] += part[k]
        before = h[row] if t == 0 else y[row, t - 1]
        marks = acts[t % acts.shape[0], row]
        if kind == LSTM:
            _lstm(y[row, t], c[(t + 1) % c.shape[0], row], c[t % c.shape[0], row], marks, given[row, t], fed)
        elif kind == GRU:
            _gru(y[row, t], before, marks, given[row, t], fed)
        else:
            _rnn(y[row, t], given[row, t], fed, kind)


@inlined
def _lstm(y: Floats, c: Floats, before: Floats, acts: Floats, given: Floats, fed: Floats) -> None:
    n = y.shape[0]
    i, f, g, o = acts[:n], acts[n : 2 * n], acts[2 * n : 3 * n], acts[3 * n :]
    for k in range(2 * n):
        acts[k] = sigmoid(given[k] + fed[k])
    for k in range(2 * n, 3 * n):
        acts[k] = tanh(given[k] + fed[k])
    for k in range(3 * n, 4 * n):
        acts[k] = sigmoid(given[k] + fed[k])
    for j in range(n):
        c[j] = f[j] * before[j] + i[j] * g[j]
    for j in range(n):
        y[j] = o[j] * tanh(c[j])


@inlined
def _gru(y: Floats, before: Floats, acts: Floats, given: Floats, fed: Floats) -> None:
    n = y.shape[0]
    r, z, new, part = acts[:n], acts[n : 2 * n], acts[2 * n : 3 * n], acts[3 * n :]
    for k in range(2 * n):
        acts[k] = sigmoid(given[k] + fed[k])
    given_n, fed_n = given[2 * n :], fed[2 * n :]
    for j in range(n):
        part[j] = fed_n[j]
        new[j] = tanh(given_n[j] + r[j] * fed_n[j])
    for j in range(n):
        y[j] = new[j] + z[j] * (before[j] - new[j])


@inlined
def _rnn(y: Floats, given: Floats, fed: Floats, kind: int) -> None:
    if kind == RNN_TANH:
        for j in range(y.shape[0]):
            y[j] = tanh(given[j] + fed[j])
    else:
        for j in range(y.shape[0]):
            y[j] = max(given[j] + fed[j], _ZERO)


@compiled
def step_back(
    kind: int, t: int, slot: int, to_given: Floats, back: Floats, to_bias: Floats, dh: Floats, dc: Floats, to_y: Floats,
    y: Floats, c: Floats, acts: Floats, h: Floats, kept: Bytes, ranges: Floats, first: int, last: int, scratch: Floats,
) -> None:  # fmt: skip
    """Step ``t`` backward, from the gradient of its state to that of its products. Arrays as of ``step_forward``.

    to_given, to_y: gradients of the input products, filled, and of the outputs; back: (row blocks, slots, last - first,
    gates), of the products, filled at ``slot``; to_bias: (batch, gates), added to; dh, dc: (batch, units), what later
    steps give to the state of this one, changed to what this step gives to the one before beside its product; ranges:
    (row blocks,).
    """
    width = to_given.shape[2]
    fed = scratch[0, :width]
    for row in range(first, last):
        made, state, marks = to_given[row, t], dh[row], acts[t % acts.shape[0], row]
        outer = to_y[row, t]
        for j in range(state.shape[0]):
            state[j] += outer[j]
        if kind == LSTM:
            _lstm_back(made, state, dc[row], c[t + 1, row], c[t, row], marks, scratch[1])
            fed[:] = made
        elif kind == GRU:
            _gru_back(made, fed, state, h[row] if t == 0 else y[row, t - 1], marks)
        else:
            _rnn_back(made, state, y[row, t], kind)
            fed[:] = made
        total = to_bias[row]
        for k in range(width):
            total[k] += fed[k]
        for block in range(back.shape[0]):
            r, out, passed = ranges[block], back[block, slot, row - first], kept[block, t, row]
            for k in range(width):
                out[k] = fed[k] * (r * np.float32(passed[k]))


@inlined
def _lstm_back(made: Floats, dh: Floats, dc: Floats, c: Floats, before: Floats, acts: Floats, scratch: Floats) -> None:
    n = dh.shape[0]
    i, f, g, o = acts[:n], acts[n : 2 * n], acts[2 * n : 3 * n], acts[3 * n :]
    to_i, to_f, to_g, to_o = made[:n], made[n : 2 * n], made[2 * n : 3 * n], made[3 * n :]
    for j in range(n):
        scratch[j] = tanh(c[j])
    for j in range(n):
        to_o[j] = dh[j] * scratch[j] * o[j] * (_ONE - o[j])
        dc[j] += dh[j] * o[j] * (_ONE - scratch[j] * scratch[j])
    for j in range(n):
        to_i[j] = dc[j] * g[j] * i[j] * (_ONE - i[j])
        to_g[j] = dc[j] * i[j] * (_ONE - g[j] * g[j])
    for j in range(n):
        to_f[j] = dc[j] * before[j] * f[j] * (_ONE - f[j])
        dc[j] *= f[j]
        dh[j] = _ZERO


@inlined
def _gru_back(made: Floats, fed: Floats, dh: Floats, before: Floats, acts: Floats) -> None:
    n = dh.shape[0]
    r, z, new, part = acts[:n], acts[n : 2 * n], acts[2 * n : 3 * n], acts[3 * n :]
    to_r, to_z, to_n, fed_n = made[:n], made[n : 2 * n], made[2 * n :], fed[2 * n :]
    for j in range(n):
        to_n[j] = dh[j] * (_ONE - z[j]) * (_ONE - new[j] * new[j])
        fed_n[j] = to_n[j] * r[j]
    for j in range(n):
        to_r[j] = to_n[j] * part[j] * r[j] * (_ONE - r[j])
        to_z[j] = dh[j] * (before[j] - new[j]) * z[j] * (_ONE - z[j])
        dh[j] *= z[j]
    for k in range(2 * n):
        fed[k] = made[k]


@inlined
def _rnn_back(made: Floats, dh: Floats, y: Floats, kind: int) -> None:
    for j in range(dh.shape[0]):
        made[j] = dh[j] * (_ONE - y[j] * y[j]) if kind == RNN_TANH else dh[j] * np.float32(y[j] > _ZERO)
        dh[j] = _ZERO


@compiled
def state_back(
    t: int, dh: Floats, to_codes: Floats, y: Floats, h: Floats, ranges: Floats, cuts: Ints, pull: Doubles,
    inside: Doubles, first: int, last: int,
) -> None:  # fmt: skip
    """What the codes of step ``t`` give to the state before it, added to dh, and what pulls at the ranges.

    to_codes: (batch, units), the gradient of the codes; ranges: (row blocks,); cuts: (row blocks + 1,), the first unit
    of each; pull, inside: (steps, row blocks, batch), filled, as of ``kernels.drive_back``.
    """
    for row in range(first, last):
        before, given, out = h[row] if t == 0 else y[row, t - 1], to_codes[row], dh[row]
        for block in range(ranges.shape[0]):
            r, begin, end = ranges[block], cuts[block], cuts[block + 1]
            scale = _ONE / r
            kept = np.int32(0)
            for j in range(begin, end):
                kept += np.int32(abs(before[j]) < r)
            drawn = 0.0
            if kept < end - begin:
                for j in range(begin, end):
                    if abs(before[j]) >= r:
                        behind = given[j] * scale
                        drawn += min(behind if before[j] > _ZERO else -behind, _ZERO)
            pull[t, block, row], inside[t, block, row] = drawn, kept
            for j in range(begin, end):
                out[j] += given[j] * scale if abs(before[j]) <= r else _ZERO

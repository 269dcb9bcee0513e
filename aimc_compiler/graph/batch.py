"""What a sample is: making a batch of two from the example, and checking that samples do not influence each other.

A network that takes time first, or normalises over the batch, would be captured without complaint and be wrong in
silence. So the captured graph must satisfy ``f(cat(x, x')) == cat(f(x), f(x'))``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aimc_compiler.errors import BatchError
from aimc_compiler.records import record

#: The dimension that counts samples: one for all inputs, or one each, None for inputs without; None where the whole
#: example is one sample.
BatchDim = int | tuple[int | None, ...] | None
#: Relative to the largest output: float32 sums in another order stay far below, another batch's influence far above.
_TOLERANCE = 1e-4
#: The same for types of lower precision, in their rounding steps: each operation rounds again.
_TOLERANCE_STEPS = 8


@record
class Samples:
    """Flat inputs of two samples and of both as one batch; dims: the batch dimension of each."""

    dims: tuple[int | None, ...]
    first: tuple[Any, ...]
    second: tuple[Any, ...]
    both: tuple[Any, ...]


def batch_dims(
    leaves: Sequence[Any], names: Sequence[str], batch_dim: int | tuple[int | None, ...]
) -> tuple[int | None, ...]:
    """The batch dimension of each flat input, non-negative; None for inputs that are no tensors. Raises BatchError."""
    given = _one_each(leaves, batch_dim)
    return tuple(_checked(leaf, name, dim) for leaf, name, dim in zip(leaves, names, given, strict=True))


def _one_each(leaves: Sequence[Any], batch_dim: int | tuple[int | None, ...]) -> tuple[int | None, ...]:
    if isinstance(batch_dim, int):
        return tuple(batch_dim if isinstance(leaf, Tensor) else None for leaf in leaves)
    if len(batch_dim) != len(leaves):
        raise BatchError(
            f"batch_dim has {len(batch_dim)} entries for {len(leaves)} inputs: give one int for all, or one entry for "
            "each input in order (None for an input without a batch dimension)"
        )
    return tuple(batch_dim)


def _checked(leaf: Any, name: str, dim: int | None) -> int | None:
    if dim is None:
        return None
    if not isinstance(leaf, Tensor) or not -leaf.dim() <= dim < leaf.dim():
        what = f"a tensor of shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else f"a {type(leaf).__name__}"
        raise BatchError(
            f"input {name} is {what}, which has no dimension {dim}: give batch_dim as a tuple, one entry for each "
            "input, with None for those without a batch dimension, or batch_dim=None for the whole example as a sample"
        )
    if leaf.shape[dim] == 0:
        raise BatchError(f"input {name} holds no sample: its batch dimension {dim} has size 0; give at least one")
    return dim % leaf.dim()


def make_samples(leaves: Sequence[Any], dims: tuple[int | None, ...]) -> Samples:
    """Two different samples with the example's values: its first two, or its first and a permutation of that."""
    first, second, both = [], [], []
    for leaf, dim in zip(leaves, dims, strict=True):
        if dim is None:
            one, other, pair = leaf, leaf, leaf
        else:
            one = leaf.narrow(dim, 0, 1).contiguous()
            other = _other(leaf, one, dim)
            pair = torch.cat([one, other], dim)
        first.append(one)
        second.append(other)
        both.append(pair)
    return Samples(dims=dims, first=tuple(first), second=tuple(second), both=tuple(both))


def _other(leaf: Tensor, one: Tensor, dim: int) -> Tensor:
    """A second sample of the same type whose values are valid too."""
    if leaf.is_meta:
        return one.clone()
    if leaf.shape[dim] > 1:
        two = leaf.narrow(dim, 1, 1).contiguous()
        if not torch.equal(one, two):
            return two
    flipped = one.flip(tuple(range(one.dim())))
    if torch.equal(flipped, one) and one.is_floating_point():
        # A constant example (zeros, ones) has no other order of its values: add a ramp.
        ramp = torch.linspace(0.1, 1.0, max(one.numel(), 1), dtype=torch.float64, device=one.device)
        return one + ramp.reshape(one.shape).to(one.dtype)
    return flipped


def tolerance(dtypes: Sequence[str]) -> float:
    """The deviation that rounding explains in a network whose values have these types."""
    types = [getattr(torch, dtype) for dtype in dtypes]
    steps = [torch.finfo(dtype).eps for dtype in types if dtype.is_floating_point]
    return max(_TOLERANCE, _TOLERANCE_STEPS * max(steps, default=0.0))


def output_dims(single: Sequence[Any], double: Sequence[Any], names: Sequence[str]) -> tuple[int | None, ...]:
    """The batch dimension of each flat output: the one that doubles from one sample to two. Raises BatchError."""
    return tuple(_output_dim(*item) for item in zip(single, double, names, strict=True))


def _output_dim(single: Any, double: Any, name: str) -> int | None:
    if not isinstance(single, Tensor):
        return None
    if single.dim() != double.dim():
        raise BatchError(
            f"output {name} has shape {tuple(single.shape)} for one sample and {tuple(double.shape)} for two: an "
            "operation drops the batch dimension where it is 1, as squeeze() does; name the dimensions to squeeze"
        )
    grown = [axis for axis, (one, two) in enumerate(zip(single.shape, double.shape, strict=True)) if two != one]
    if not grown:
        raise BatchError(
            f"output {name} has no batch dimension: its shape is {tuple(single.shape)} for one sample and for two. "
            "Return a value for each sample, give another batch_dim, or batch_dim=None to take the whole example as "
            "one sample"
        )
    if len(grown) > 1 or double.shape[grown[0]] != 2 * single.shape[grown[0]]:
        raise BatchError(
            f"output {name} mixes the samples of a batch: its shape is {tuple(single.shape)} for one sample and "
            f"{tuple(double.shape)} for two. {_ADVICE}"
        )
    return grown[0]


def check_samples(
    first: Sequence[Any],
    second: Sequence[Any],
    both: Sequence[Any],
    dims: tuple[int | None, ...],
    names: Sequence[str],
    allowed: float,
) -> None:
    """Check that the outputs for two samples at once are those of each alone. Raises BatchError naming the output."""
    for one, other, pair, dim, name in zip(first, second, both, dims, names, strict=True):
        if dim is None or one.is_meta:
            continue
        apart = torch.cat([one, other], dim)
        difference = deviation(pair, apart)
        if difference > allowed:
            raise BatchError(
                f"output {name} mixes the samples of a batch: computed together they differ from each alone by "
                f"{difference:.2g} of the largest value. {_ADVICE}"
            )


def first_difference(
    expected: Sequence[Any], actual: Sequence[Any], names: Sequence[str], allowed: float
) -> tuple[str, float] | None:
    """(name, deviation) of the first output off by more than allowed; values on the meta device do not count."""
    for name, theirs, ours in zip(names, expected, actual, strict=True):
        if not isinstance(theirs, Tensor) or theirs.is_meta:
            continue
        difference = deviation(ours, theirs)
        if difference > allowed:
            return name, difference
    return None


def check_single(expected: Sequence[Any], actual: Sequence[Any], names: Sequence[str], allowed: float) -> None:
    """Check the graph, captured for two samples, against the network on one. Raises BatchError naming the output."""
    found = first_difference(expected, actual, names, allowed)
    if found is not None:
        raise BatchError(
            f"output {found[0]} of a single sample differs from what the graph, captured for any number of samples, "
            f"gives by {found[1]:.2g} of the largest value: does forward treat a batch of one in its own way "
            "(an `if` on its size)? Treat all alike, or take the whole example as one sample with batch_dim=None"
        )


def deviation(actual: Tensor, expected: Tensor) -> float:
    """The largest difference relative to the largest finite expected value; for other types the share that differs."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return float("inf")
    if actual.numel() == 0:
        return 0.0
    if not (actual.is_floating_point() or actual.is_complex()):
        return float((actual != expected).double().mean())
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    difference = torch.where(same, torch.zeros_like(actual), actual - expected).abs().nan_to_num(nan=float("inf"))
    scale = torch.where(expected.isfinite(), expected, torch.zeros_like(expected)).abs().max()
    largest = float(difference.max())
    return largest / float(scale) if float(scale) > 0 else largest


_ADVICE = (
    "The batch dimension may be another one (batch_dim=1 for time first, or one entry for each input); where the "
    "network does relate the samples of a batch, take the whole example as one sample with batch_dim=None"
)

"""Batches of inputs as users give them."""

from collections.abc import Callable, Iterable
from typing import Any

from aimc_compiler.errors import CalibrationError, DataError


def as_call(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) of a batch that is a tensor, a tuple or list of inputs, or a dict of keyword inputs."""
    if isinstance(batch, dict):
        return (), batch
    return (tuple(batch), {}) if isinstance(batch, tuple | list) else ((batch,), {})


def run_batches(batches: Iterable[Any], run: Callable[..., int], *, batch_name: str, place: str) -> int:
    """The sum of what ``run`` returns for each batch of inputs.

    Raises CalibrationError where a batch does not run; batch_name, place: what it is called, and where it ran.
    """
    total = 0
    for number, batch in enumerate(batches):
        args, kwargs = as_call(batch)
        try:
            total += run(*args, **kwargs)
        except (TypeError, ValueError, RuntimeError, DataError) as error:
            raise CalibrationError(
                f"{batch_name} {number} does not run {place}: {error}. Each batch must be the network's inputs alone "
                "(a tensor, a tuple or a dict), without labels: (x for x, _ in loader)"
            ) from error
    return total

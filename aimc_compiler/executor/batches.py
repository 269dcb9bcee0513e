"""Batches of inputs as users give them."""

from typing import Any


def as_call(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) of a batch that is a tensor, a tuple or list of inputs, or a dict of keyword inputs."""
    if isinstance(batch, dict):
        return (), batch
    return (tuple(batch), {}) if isinstance(batch, tuple | list) else ((batch,), {})

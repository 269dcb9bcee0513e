"""Networks to try, in plain torch, with trained weights and data where they are small. Imports nothing of ours."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from aimc_compiler.zoo.digits import digit_features
from aimc_compiler.zoo.fashion import fashion_images
from aimc_compiler.zoo.generation import GENERATORS
from aimc_compiler.zoo.registry import NETWORKS, Entry, Example, Input

__all__ = ["DATASETS", "GENERATORS", "NETWORKS", "Batches", "Entry", "Example", "Input"]

Batches = Iterator[tuple[Tensor, Tensor]]


def _fashion_batches(part: str, batch: int = 100) -> Batches:
    images, labels = fashion_images("test" if part == "test" else "calibration")
    return zip(torch.split(images, batch), torch.split(labels, batch), strict=True)


def _digit_batches(part: str, batch: int = 100) -> Batches:
    features, digits = digit_features("test" if part == "test" else "calibration")
    return zip(torch.split(features, batch), torch.split(digits, batch), strict=True)


#: name -> function that returns batches of (inputs, labels)
DATASETS: dict[str, Callable[[], Batches]] = {
    "fashion_test": lambda: _fashion_batches("test"),
    "fashion_calibration": lambda: _fashion_batches("calibration"),
    "digits_test": lambda: _digit_batches("test"),
    "digits_calibration": lambda: _digit_batches("calibration"),
}

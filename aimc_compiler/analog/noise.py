"""Noise that is fresh at each MVM: of the inputs, of reading the cells, of the outputs.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods and Supplementary Table 1. Between the read noise and the output
noise of the model stands nothing nonlinear, so both are one Gaussian of the sum of their variances; exact in
distribution, half the draws.

Draws are keyed by the piece and indexed by (sample, call, column): they know nothing of batches.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.analog.straight_through import constant
from aimc_compiler.errors import InternalError
from aimc_compiler.records import record
from aimc_compiler.rng import Key, Layout, normals_side_by_side


@record
class Draw:
    """Where the normals of some MVMs come from.

    keys, columns: of the streams that lie side by side along the columns; first_sample: index of the first sample;
    first_call: index of a sample's first MVM; entries: leading batch entries that make up one sample; keys_of: the
    streams of the same pieces for other purposes than the output noise.
    """

    keys: tuple[Key, ...]
    columns: tuple[int, ...]
    first_sample: int = 0
    first_call: int = 0
    entries: int = 1
    keys_of: Callable[[str], tuple[Key, ...]] | None = None

    def of(self, purpose: str) -> "Draw":
        """The same MVMs' draws for another purpose. Raises InternalError where only output noise was asked for."""
        if self.keys_of is None:
            raise InternalError(f"an MVM needs a stream for its {purpose!r} draws and was given none")
        return replace(self, keys=self.keys_of(purpose))

    def again(self, reading: str) -> "Draw":
        """The draws of another reading of the same inputs, all purposes."""

        def keys_of(purpose: str) -> tuple[Key, ...]:
            return self.of(f"{purpose} {reading}").keys

        return replace(self, keys=keys_of("output"), keys_of=keys_of)

    def normals(self, batch: int, windows: int, layout: Layout, like: Tensor) -> Tensor:
        """(batch, windows, columns) or (batch, columns, windows) standard normals, dtype and device of ``like``."""
        samples, width = batch // self.entries, sum(self.columns)
        whole = "sample_call_column" if self.entries > 1 else layout
        values = normals_side_by_side(
            self.keys,
            self.columns,
            samples,
            windows * self.entries,
            first_sample=self.first_sample,
            first_call=self.first_call,
            layout=whole,
        )
        drawn = torch.from_numpy(values).to(device=like.device, dtype=like.dtype)
        if whole == layout:
            return drawn.view(batch, windows, width) if layout == "sample_call_column" else drawn
        return drawn.view(batch, windows, width).transpose(1, 2)


def needs_draw(settings: MvmSettings) -> bool:
    """Whether outputs are noisy."""
    return bool(settings.sigma_w or settings.sigma_out)


def read_variance(power: Tensor, settings: MvmSettings) -> Tensor:
    """Variance of the read noise. power: sum_j |w_ij| x_j^2 ("pcm") or sum_j x_j^2 ("constant"), any shape."""
    # A constant for gradients, as in the training of the paper and its toolkit: noise is drawn in the forward pass and
    # added; its deviation, whose root has no finite slope at 0, is nothing that weights should learn to make small.
    return constant(power) * settings.sigma_w**2


def output_variance(settings: MvmSettings) -> float:
    """Variance of the output noise of the converters, in output units squared."""
    return settings.sigma_out**2


def add_output_noise(
    u: Tensor, power: Tensor | None, draw: Tensor, settings: MvmSettings, sigma_out: Tensor | float | None = None
) -> Tensor:
    """Outputs with read and output noise. draw: standard normals of u's shape; power: None without read noise.

    sigma_out: of each column where columns differ, broadcasting to u.
    """
    if isinstance(sigma_out, Tensor):
        variance = sigma_out.square() if power is None else read_variance(power, settings) + sigma_out.square()
        return torch.addcmul(u, variance.clamp(min=0).sqrt(), draw)
    if power is None:
        return torch.add(u, draw, alpha=settings.sigma_out)
    variance = read_variance(power, settings).add_(output_variance(settings))
    # A sum of squares can come out below zero by rounding where a convolution is made by transforms.
    deviation = variance.sqrt_() if settings.sigma_out else variance.clamp_(min=0).sqrt_()
    return torch.addcmul(u, deviation, draw)


def add_read_noise(u: Tensor, power: Tensor, draw: Tensor, settings: MvmSettings) -> Tensor:
    """Outputs with read noise alone, where the output noise comes later. As ``add_output_noise``."""
    return torch.addcmul(u, read_variance(power, settings).clamp_(min=0).sqrt_(), draw)


def add_input_noise(x: Tensor, draw: Tensor, settings: MvmSettings) -> Tensor:
    """Inputs with the noise of their converters. x: any shape, normalised; draw: standard normals of that shape."""
    return torch.add(x, draw, alpha=settings.sigma_in)

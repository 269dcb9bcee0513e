"""Log-mel features of speech, in plain torch: the logarithm of power in bands that widen with frequency.

Davis and Mermelstein, IEEE Trans. ASSP 28, 357 (1980), without their cosine transform; mel = 2595 log10(1 + f / 700).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMel:
    """A front end: ``frames`` vectors of ``bands`` numbers from a clip of any length.

    rate_hz: samples a second; window, hop: samples of a frame (Hann) and from one frame to the next; low_hz, high_hz:
    where the bands begin and end; floor: relative to full scale, what is added to the power of each band.

    Example:
        >>> LogMel()(torch.zeros(4000)).shape
        torch.Size([60, 32])
    """

    rate_hz: float = 8000.0
    window: int = 256
    hop: int = 100
    bands: int = 32
    frames: int = 60
    low_hz: float = 80.0
    high_hz: float = 4000.0
    floor: float = 1e-6

    def __call__(self, clip: Tensor) -> Tensor:
        """(frames, bands) of a clip (samples,) in -1 to 1: each band with mean 0 over the clip, all with deviation 1.

        So neither loudness (far above the floor) nor the line matters. A longer clip is cut, behind a shorter one stand
        zeros. Raises ValueError on a clip that is not one-dimensional, floating and finite, or that is empty.
        """
        _require_clip(clip)
        missing = self.window - len(clip)
        padded = torch.nn.functional.pad(clip, (0, max(missing, 0)))
        power = torch.fft.rfft(padded.unfold(0, self.window, self.hop) * torch.hann_window(self.window)).abs().square()
        energies = torch.log(power @ self.filters() + self.floor * self.window)[: self.frames]
        centred = energies - energies.mean(0)
        # A clip of silence has no deviation, and stays zero.
        features = centred / centred.square().mean().sqrt().clamp(min=1e-3)
        return torch.nn.functional.pad(features, (0, 0, 0, self.frames - len(features)))

    def filters(self) -> Tensor:
        """(window // 2 + 1, bands): triangles that overlap by half, of equal width in mel, largest value 1."""
        low, high = (_mel(torch.tensor(edge)) for edge in (self.low_hz, self.high_hz))
        edges = 700 * (10 ** (torch.linspace(float(low), float(high), self.bands + 2) / 2595) - 1)
        lines = torch.linspace(0, self.rate_hz / 2, self.window // 2 + 1)[:, None]
        rising = (lines - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - lines) / (edges[2:] - edges[1:-1])
        return torch.minimum(rising, falling).clamp(min=0)


def _mel(hertz: Tensor) -> Tensor:
    return 2595 * torch.log10(1 + hertz / 700)


def _require_clip(clip: Tensor) -> None:
    if clip.dim() != 1 or not clip.is_floating_point() or not len(clip):
        raise ValueError(
            f"a clip is a tensor (samples,) of floating type and not empty, not {tuple(clip.shape)} of {clip.dtype}: "
            "divide 16-bit integers by 32768"
        )
    if not bool(clip.isfinite().all()):
        raise ValueError("the clip holds values that are not finite: check how it was read")

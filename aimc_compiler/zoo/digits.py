"""A small LSTM that hears digits, its trained weights, and the clips it is tried on.

One layer of 96 units (Hochreiter and Schmidhuber, Neural Computation 9, 1735 (1997)) over 60 frames of 32 log-mel
features, the mean of its outputs, a linear layer: 50 890 parameters. The weights were trained by
``examples/train_digits.py`` on the Free Spoken Digit Dataset (Jakobovski et al., CC BY-SA 4.0), without clips 0 to 4 of
each speaker and digit, which are its test set; the committed clips are an excerpt of it.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from aimc_compiler.zoo.log_mel import LogMel

ASSETS = Path(__file__).parent / "assets"
WEIGHTS = ASSETS / "digit_lstm.safetensors"
CLIPS = ASSETS / "spoken_digits.npz"

Part = Literal["test", "calibration"]


class DigitLstm(nn.Module):
    """LSTM on (batch, frames, bands) features; returns (batch, classes) logits.

    bands, width: the committed weights are those of the defaults. Frames of zeros, as behind a short clip, count like
    others.
    """

    def __init__(self, bands: int = 32, width: int = 96, classes: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(bands, width, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.lstm(x)
        logits: Tensor = self.head(outputs.mean(1))
        return logits


def digit_lstm() -> DigitLstm:
    """The trained network, in evaluation mode."""
    model = DigitLstm()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def digit_clips(part: Part) -> tuple[list[Tensor], Tensor]:
    """Clips (samples,) as float32 in -1 to 1 at 8 kHz, and their digits (n,), of the committed excerpt.

    part: "test" holds clip 0 of each of six speakers and ten digits, "calibration" clip 5 of each speaker and of every
    other digit, which the network was trained on.
    """
    with np.load(CLIPS) as data:
        audio, lengths, digits = (data[f"{part}_{name}"] for name in ("audio", "length", "digit"))
    samples = torch.from_numpy(audio.astype(np.float32) / np.float32(32768))
    return list(torch.split(samples, lengths.tolist())), torch.from_numpy(digits.astype(np.int64))


def digit_features(part: Part) -> tuple[Tensor, Tensor]:
    """The network's inputs (n, 60, 32) and digits (n,) of the committed excerpt."""
    clips, digits = digit_clips(part)
    front_end = LogMel()
    return torch.stack([front_end(clip) for clip in clips]), digits

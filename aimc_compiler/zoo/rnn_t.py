"""A recurrent transducer (RNN-T) for Switchboard 300 h.

Saon, Tueske, Bolanos, Kingsbury, "Advancing RNN transducer technology for speech recognition", ICASSP 2021: an
encoder of 6 bidirectional LSTM layers of 640 a direction, a prediction network of one LSTM of 768 on embeddings of 10,
a joint network of width 256 that multiplies the two, 46 characters with the blank; 57 M parameters. Rasch et al., Nat.
Commun. 14, 5282 (2023) measured it with weights on phase-change devices.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from aimc_compiler.zoo.building import seeded

#: How the joint network combines: "multiplicative" is Saon et al.'s, "additive" that of Graves, arXiv:1211.3711.
Joint = Literal["multiplicative", "additive"]


class PredictionNetwork(nn.Module):
    """Characters so far, (batch, length), to states (batch, length, width)."""

    def __init__(self, characters: int, embedding: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding)
        self.lstm = nn.LSTM(embedding, width, batch_first=True)

    def forward(self, characters: Tensor) -> Tensor:
        states: Tensor = self.lstm(self.embedding(characters))[0]
        return states


class JointNetwork(nn.Module):
    """Scores of the next character at each frame behind each prefix.

    frames: (batch, time, encoder width), prefixes: (batch, length, prediction width); returns
    (batch, time, length, characters) logits.
    """

    def __init__(self, encoder: int, prediction: int, width: int, characters: int, joint: Joint) -> None:
        super().__init__()
        if joint not in ("multiplicative", "additive"):
            raise ValueError(f"joint is {joint!r}: choose 'multiplicative' or 'additive'")
        self.joint = joint
        self.encoder = nn.Linear(encoder, width)
        self.prediction = nn.Linear(prediction, width)
        self.output = nn.Linear(width, characters)

    def forward(self, frames: Tensor, prefixes: Tensor) -> Tensor:
        left, right = self.encoder(frames).unsqueeze(2), self.prediction(prefixes).unsqueeze(1)
        both = left * right if self.joint == "multiplicative" else left + right
        logits: Tensor = self.output(torch.tanh(both))
        return logits


class RnnTransducer(nn.Module):
    """Encoder, prediction network and joint network.

    frames: (batch, time, features). characters: (batch, length), the blank (0) first. Returns
    (batch, time, length, characters) logits.
    """

    def __init__(self, encoder: nn.LSTM, prediction: PredictionNetwork, joint: JointNetwork) -> None:
        super().__init__()
        self.encoder = encoder
        self.prediction = prediction
        self.joint = joint

    def forward(self, frames: Tensor, characters: Tensor) -> Tensor:
        encoded, _ = self.encoder(frames)
        logits: Tensor = self.joint(encoded, self.prediction(characters))
        return logits


def rnn_t(
    *,
    features: int = 340,
    width: int = 640,
    layers: int = 6,
    embedding: int = 10,
    prediction: int = 768,
    joint_width: int = 256,
    characters: int = 46,
    joint: Joint = "multiplicative",
    seed: int = 0,
) -> RnnTransducer:
    """The transducer of Saon et al.: 57 164 282 parameters (two biases a gate). In evaluation mode.

    features: 240 of two stacked frames and 100 of the speaker.

    Example:
        >>> logits = rnn_t()(torch.zeros(1, 50, 340), torch.zeros(1, 8, dtype=torch.long))      # (1, 50, 8, 46)
    """

    def build() -> RnnTransducer:
        encoder = nn.LSTM(features, width, layers, bidirectional=True, batch_first=True)
        predictor = PredictionNetwork(characters, embedding, prediction)
        return RnnTransducer(encoder, predictor, JointNetwork(2 * width, prediction, joint_width, characters, joint))

    return seeded(build, seed)

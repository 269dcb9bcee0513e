"""Two recurrent networks that analog chips are measured on: a language model and an acoustic model.

Language model of the Penn Treebank: Zaremba, Sutskever, Vinyals, "Recurrent neural network regularization",
arXiv:1409.2329, section 4.1, the medium network (2 layers of 650, unrolled for 35 steps). Acoustic model of Switchboard
300 h: Rasch et al., "Hardware-aware training for large-scale and diverse deep learning inference workloads using
in-memory computing-based accelerators", Nat. Commun. 14, 5282 (2023), methods: 4 bidirectional layers of 512 a
direction, a bottleneck of 256, 32 000 states of a hidden Markov model.
"""

from torch import Tensor, nn

from aimc_compiler.zoo.building import seeded

#: Zaremba et al., section 4.1: the medium network starts uniform within this bound.
UNIFORM = 0.05


class WordLstm(nn.Module):
    """Embedding, LSTM layers and a decoder. tokens: (batch, time); returns (batch, time, vocabulary) logits.

    The state is 0 before the first token. Dropout does nothing in evaluation mode.
    """

    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        self.encoder = nn.Embedding(vocabulary, width)
        self.drop = nn.Dropout(0.5)
        self.rnn = nn.LSTM(width, width, layers, dropout=0.5, batch_first=True)
        self.decoder = nn.Linear(width, vocabulary)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -UNIFORM, UNIFORM)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.rnn(self.drop(self.encoder(tokens)))
        logits: Tensor = self.decoder(self.drop(states))
        return logits


class AcousticLstm(nn.Module):
    """Bidirectional LSTM layers, a linear bottleneck and scores of states; weights start as torch's layers do.

    frames: (batch, time, features); returns (batch, time, states) logits.
    """

    def __init__(self, features: int, width: int, layers: int, bottleneck: int, states: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, width, layers, bidirectional=True, batch_first=True)
        self.bottleneck = nn.Linear(2 * width, bottleneck)
        self.output = nn.Linear(bottleneck, states)

    def forward(self, frames: Tensor) -> Tensor:
        hidden, _ = self.lstm(frames)
        logits: Tensor = self.output(self.bottleneck(hidden))
        return logits


def ptb_lstm(*, vocabulary: int = 10000, width: int = 650, layers: int = 2, seed: int = 0) -> WordLstm:
    """The medium LSTM of the Penn Treebank: 19 780 400 parameters (two biases a gate). In evaluation mode.

    Example:
        >>> logits = ptb_lstm()(torch.zeros(1, 35, dtype=torch.long))      # (1, 35, 10000)
    """
    return seeded(lambda: WordLstm(vocabulary, width, layers), seed)


def swb300_lstm(
    *,
    features: int = 140,
    width: int = 512,
    layers: int = 4,
    bottleneck: int = 256,
    states: int = 32000,
    seed: int = 0,
) -> AcousticLstm:
    """The acoustic model of Switchboard 300 h: 30 064 128 parameters (two biases a gate). In evaluation mode.

    Example:
        >>> logits = swb300_lstm()(torch.zeros(1, 21, 140))      # (1, 21, 32000)
    """
    return seeded(lambda: AcousticLstm(features, width, layers, bottleneck, states), seed)

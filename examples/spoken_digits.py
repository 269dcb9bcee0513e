"""Spoken digits on an analog chip: the trained LSTM of the zoo, on the test set of the Free Spoken Digit Dataset.

    git clone https://github.com/Jakobovski/free-spoken-digit-dataset
    python examples/spoken_digits.py --data free-spoken-digit-dataset/recordings

``--data`` names the folder of the recordings, DIGIT_SPEAKER_INDEX.wav, or an .npz with the same: ``audio`` (all clips
end to end, 16 bit, 8 kHz), and ``length``, ``digit``, ``speaker`` and ``index`` of each clip.
"""

import re
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from results import chip_of, options_of, print_results
from safetensors.torch import load_file
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.chip import ChipSpec
from aimc_compiler.compiler import CompiledModel
from aimc_compiler.study import Evaluation
from aimc_compiler.zoo.digits import WEIGHTS, DigitLstm
from aimc_compiler.zoo.log_mel import LogMel

RATE_HZ = 8000
#: Clips below this index are the test set, as the data set's authors have it.
FIRST_TRAINING_INDEX = 5
CALIBRATION_CLIPS = 500


class Clips(NamedTuple):
    """audio: 16-bit samples of each clip; digit, speaker, index: (n,) integers; speakers: the names."""

    audio: list[np.ndarray]
    digit: Tensor
    speaker: Tensor
    index: Tensor
    speakers: tuple[str, ...]

    def features(self) -> Tensor:
        """(n, 60, 32) inputs of the network."""
        front_end = LogMel(rate_hz=RATE_HZ)
        return torch.stack([front_end(torch.from_numpy(clip.astype(np.float32) / 32768)) for clip in self.audio])


def read_clips(path: Path) -> Clips:
    """All clips of a folder of recordings or of an .npz, in order of speaker, digit and index."""
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise SystemExit(
            f"{path} does not exist: clone https://github.com/Jakobovski/free-spoken-digit-dataset and name its folder "
            "recordings"
        )
    with np.load(path) as data:
        audio = np.split(data["audio"], np.cumsum(data["length"])[:-1])
        digit, speaker, index = (
            torch.from_numpy(data[name].astype(np.int64)) for name in ("digit", "speaker", "index")
        )
    order = np.lexsort((index.numpy(), digit.numpy(), speaker.numpy()))
    names = tuple(f"speaker {number}" for number in range(int(speaker.max()) + 1))
    return Clips([audio[place] for place in order], digit[order], speaker[order], index[order], names)


def _read_folder(folder: Path) -> Clips:
    found = []
    for path in folder.glob("*.wav"):
        name = re.fullmatch(r"(\d)_(\w+)_(\d+)", path.stem)
        if name is None:
            raise SystemExit(
                f"{path} is not called DIGIT_SPEAKER_INDEX.wav: name the folder recordings of the data set"
            )
        found.append((name[2], int(name[1]), int(name[3]), path))
    if not found:
        raise SystemExit(f"{folder} holds no .wav: name the folder recordings of the data set")
    found.sort()
    names = tuple(dict.fromkeys(speaker for speaker, *_ in found))
    return Clips(
        [_read_wave(path) for *_, path in found],
        torch.tensor([digit for _, digit, _, _ in found]),
        torch.tensor([names.index(speaker) for speaker, *_ in found]),
        torch.tensor([index for _, _, index, _ in found]),
        names,
    )


def _read_wave(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        form = (file.getframerate(), file.getsampwidth(), file.getnchannels())
        if form != (RATE_HZ, 2, 1):
            raise SystemExit(
                f"{path} has {form[0]} Hz, {form[1]} bytes a sample, {form[2]} channels: 8000 Hz, 2 and 1 are needed"
            )
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def measure(
    model: nn.Module, calibration: Tensor, x: Tensor, digits: Tensor, *, chip: ChipSpec, chips: int, seed: int
) -> tuple[CompiledModel, Evaluation]:
    """The compiled network and its accuracy. calibration, x: (n, 60, 32) features; digits: (n,)."""
    compiled = aimc.compile(model, chip, (x[:1],), calibration=calibration.split(100))
    data = zip(x.split(100), digits.split(100), strict=True)
    return compiled, aimc.evaluate(compiled, data, n_chips=chips, seed=seed)


def some(x: Tensor) -> Tensor:
    """Evenly over all speakers and digits, ``CALIBRATION_CLIPS`` of them."""
    return x[:: max(1, len(x) // CALIBRATION_CLIPS)]


def main() -> None:
    parser = options_of(__doc__, "folder of recordings, or .npz")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="of train_digits.py (default: the zoo's)")
    options = parser.parse_args()
    model = DigitLstm()
    model.load_state_dict(load_file(options.weights))
    clips = read_clips(options.data)
    features, test = clips.features(), clips.index < FIRST_TRAINING_INDEX
    compiled, result = measure(
        model.eval(),
        some(features[~test]),
        features[test],
        clips.digit[test],
        chip=chip_of(options),
        chips=options.chips,
        seed=options.seed,
    )
    print_results(compiled, {"official split": result}, as_json=options.json)


if __name__ == "__main__":
    main()

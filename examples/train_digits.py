"""Train the zoo's LSTM on the Free Spoken Digit Dataset, and put what was trained on an analog chip.

    python examples/train_digits.py --data RECORDINGS --out digit_lstm.safetensors     # the official split
    python examples/train_digits.py --data RECORDINGS --split speakers                 # each speaker held out in turn

``examples/spoken_digits.py`` says where the data comes from. The committed weights come from the default settings.
With ``--excerpt FILE`` it also writes the clips that the repository keeps.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from results import chip_of, options_of, print_results
from safetensors.torch import save_file
from spoken_digits import FIRST_TRAINING_INDEX, Clips, measure, read_clips, some
from torch import Tensor, nn

from aimc_compiler.zoo.digits import DigitLstm


def train(
    x: Tensor, digits: Tensor, *, epochs: int = 30, seed: int = 0, batch: int = 64, rate: float = 4e-3
) -> DigitLstm:
    """Adam on a one-cycle schedule. x: (n, frames, bands) features; digits: (n,). Every seed gives one network."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = DigitLstm(bands=x.shape[2])
    steps = max(1, len(x) // batch)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, epochs * steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    start = time.monotonic()
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(x), generator=generator)[: steps * batch].split(batch):
            loss = loss_of(model(x[chosen]), digits[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
        if (epoch + 1) % 10 == 0:
            seconds = time.monotonic() - start
            print(f"epoch {epoch + 1:2d}  loss {total / steps:.4f}  {seconds:.0f} s", file=sys.stderr, flush=True)
    return model.eval()


def write_excerpt(clips: Clips, path: Path) -> None:
    """The clips that the repository keeps: the first of the test set, and of every other digit the first trained on."""
    calibration = (clips.index == FIRST_TRAINING_INDEX) & (clips.digit % 2 == clips.speaker % 2)
    arrays = {}
    for part, chosen in (("test", clips.index == 0), ("calibration", calibration)):
        audio = [clips.audio[place] for place in chosen.nonzero().flatten().tolist()]
        arrays[f"{part}_audio"] = np.concatenate(audio).astype(np.int16)
        arrays[f"{part}_length"] = np.array([len(clip) for clip in audio], np.int32)
        arrays[f"{part}_digit"] = clips.digit[chosen].numpy().astype(np.uint8)
        arrays[f"{part}_speaker"] = clips.speaker[chosen].numpy().astype(np.uint8)
    np.savez_compressed(path, **arrays)


def main() -> None:
    parser = options_of(__doc__, "folder of recordings, or .npz")
    parser.add_argument("--split", choices=("official", "speakers"), default="official")
    parser.add_argument("--out", type=Path, help="write the weights of the official split")
    parser.add_argument("--excerpt", type=Path, help="also write the clips that the repository keeps")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--train-seed", type=int, default=0, help="of first weights and order")
    options = parser.parse_args()
    clips = read_clips(options.data)
    if options.excerpt:
        write_excerpt(clips, options.excerpt)
    features, results = clips.features(), {}
    splits = {"official split": clips.index < FIRST_TRAINING_INDEX}
    if options.split == "speakers":
        splits = {f"without {name}": clips.speaker == number for number, name in enumerate(clips.speakers)}
    for name, test in splits.items():
        model = train(features[~test], clips.digit[~test], epochs=options.epochs, seed=options.train_seed)
        compiled, results[name] = measure(
            model,
            some(features[~test]),
            features[test],
            clips.digit[test],
            chip=chip_of(options),
            chips=options.chips,
            seed=options.seed,
        )
    if options.out and options.split == "official":
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, options.out)
    print_results(compiled, results, as_json=options.json)


if __name__ == "__main__":
    main()

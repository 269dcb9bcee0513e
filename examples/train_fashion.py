"""Train the demo's residual CNN on all of Fashion-MNIST and write its weights.

    apt-get install dataset-fashion-mnist      # or any folder that holds the four idx .gz files
    python examples/train_fashion.py --data /usr/share/datasets/fashion-mnist --out weights.safetensors

With ``--excerpt FILE`` it also writes the images that the repository keeps (first 2000 of the test set, first 512
of the training set). The committed weights come from the default settings.
"""

import argparse
import gzip
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from aimc_compiler.zoo.fashion import FashionResNet

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def read_idx(path: Path, header: int) -> np.ndarray:
    """The bytes of an idx file after its header (16 for images, 8 for labels)."""
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header).copy()


def read_set(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 28, 28) and labels (n,) of one set ("train" or "t10k")."""
    images = folder / f"{name}-images-idx3-ubyte.gz"
    if not images.exists():
        raise SystemExit(
            f"{images} does not exist: install the Debian package dataset-fashion-mnist, or name "
            "the folder of the four idx .gz files with --data"
        )
    labels = read_idx(folder / f"{name}-labels-idx1-ubyte.gz", 8)
    return read_idx(images, 16).reshape(-1, 28, 28), labels


def augment(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Each batch shifted by up to two pixels and, image by image, mirrored with probability one half.

    generator: of the draws; None: torch's own.
    """
    dy, dx = torch.randint(0, 5, (2,), generator=generator).tolist()
    x = nn.functional.pad(x, (2, 2, 2, 2))[:, :, dy : dy + 28, dx : dx + 28]
    mirror = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(mirror[:, None, None, None], x.flip(-1), x)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the images that the model names right."""
    model.eval()
    with torch.inference_mode():
        hits = sum(int((model(xb).argmax(1) == yb).sum()) for xb, yb in zip(x.split(500), y.split(500), strict=True))
    return hits / len(y)


def train(folder: Path, *, epochs: int, seed: int, batch: int = 128, rate: float = 0.4) -> FashionResNet:
    """Stochastic gradient descent with Nesterov momentum on a one-cycle schedule."""
    to_images = lambda a: torch.from_numpy(a.astype(np.float32) / np.float32(255)).unsqueeze(1)  # noqa: E731
    (images, labels), (test_images, test_labels) = read_set(folder, "train"), read_set(folder, "t10k")
    x, y = to_images(images), torch.from_numpy(labels.astype(np.int64))
    x_test, y_test = to_images(test_images), torch.from_numpy(test_labels.astype(np.int64))
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = FashionResNet()
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, epochs * steps, pct_start=0.3)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(epochs):
        start, total = time.monotonic(), 0.0
        model.train()
        for chosen in torch.randperm(len(x), generator=generator)[: steps * batch].view(steps, batch):
            loss = loss_of(model(augment(x[chosen], generator)), y[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(
            f"epoch {epoch + 1:2d}  loss {total / steps:.4f}  test accuracy {accuracy(model, x_test, y_test):.4f}"
            f"  {time.monotonic() - start:.0f} s",
            flush=True,
        )
    return model.eval()


def write_excerpt(folder: Path, path: Path) -> None:
    """The images that the repository keeps."""
    (images, labels), (test_images, test_labels) = read_set(folder, "train"), read_set(folder, "t10k")
    np.savez_compressed(
        path,
        test_images=test_images[:2000],
        test_labels=test_labels[:2000],
        calibration_images=images[:512],
        calibration_labels=labels[:512],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="folder of the four idx .gz files")
    parser.add_argument("--out", type=Path, default=Path("fashion_resnet.safetensors"))
    parser.add_argument("--excerpt", type=Path, help="also write the images that the repository keeps")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.excerpt:
        write_excerpt(options.data, options.excerpt)
    model = train(options.data, epochs=options.epochs, seed=options.seed)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()

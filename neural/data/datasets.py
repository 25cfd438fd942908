"""Named data sets: the whole set from the framework's own loader, or the subset that ships, with a notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neural.data import downloads
from neural.dsl.errors import DataError, Position, listed, nearest, quoted
from neural.dsl.model import Network, Shape


@dataclass(frozen=True)
class Part:
    """Images and labels: `x` (n, height, width, channels) float32 in 0..1, `y` (n,) int64 in 0..classes-1."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    `source` says in a sentence whose it is and under which licence. `notice` is a sentence for the user where a
    subset stands in for the whole set; else None.
    """

    name: str
    train: Part
    test: Part
    classes: int
    source: str
    notice: str | None = None


@dataclass(frozen=True)
class _Known:
    """A named data set: `white` is the largest pixel value, `whole` fetches what the subset is a part of."""

    name: str
    shape: Shape
    classes: int
    white: int
    source: str
    whole: Callable[[str], dict[str, NDArray[np.uint8]]] | None = None


_KNOWN = {
    known.name: known
    for known in (
        _Known(
            "mnist",
            (28, 28, 1),
            10,
            255,
            "MNIST, handwritten digits, by Yann LeCun and Corinna Cortes, CC BY-SA 3.0.",
            downloads.mnist,
        ),
        _Known(
            "digits",
            (8, 8, 1),
            10,
            16,
            "Optical Recognition of Handwritten Digits, by E. Alpaydin and C. Kaynak, UCI, CC BY 4.0.",
        ),
    )
}


def load(name: str, *, framework: str) -> Dataset:
    """Return the data set of that name.

    Args:
        name: "mnist" or "digits".
        framework: "tensorflow" or "pytorch", whose own loader is asked for the whole set.

    Raises:
        DataError: there is no such data set.
    """
    known = _known(name)
    notice = None
    arrays = _shipped(known.name)
    if known.whole is not None:
        try:
            arrays = known.whole(framework)
        except downloads.UnavailableError as error:
            notice = (
                f"The whole {known.name} data set is not available ({error}); a subset of it stands in: "
                f"{len(arrays['y_train'])} training and {len(arrays['y_test'])} test images."
            )
    return Dataset(
        known.name,
        train=_part(arrays, "train", known),
        test=_part(arrays, "test", known),
        classes=known.classes,
        source=known.source,
        notice=notice,
    )


def named(name: str | None, network: Network) -> str:
    """Return the data set's name; for None, that of the one set whose images and classes are those of the network.

    Raises:
        DataError: there is no such data set, its images or classes are not those of the network, or none is named
            and none, or more than one, fits.
    """
    if name is not None:
        known = _known(name)
        _check(known, network)
        return known.name
    fitting = [known.name for known in _KNOWN.values() if _misfit(known, network) is None]
    if len(fitting) == 1:
        return fitting[0]
    sizes = listed([f"{known.name} ({quoted(known.shape)}, {known.classes} classes)" for known in _KNOWN.values()])
    raise DataError(
        f"{network.source.filename}: no data set is named, and none follows from the input {quoted(network.input)} "
        f"and the output {quoted(network.layers[-1].output_shape)}. Write --dataset NAME, or an input and an Output "
        f"that fit {sizes}."
    )


def fitted(data: Dataset, network: Network) -> Dataset:
    """Return the data in the shape of the network's input: images as they are, or as one row of pixels.

    Raises:
        DataError: the images or the classes are not those of the network.
    """
    _check(_KNOWN[data.name], network)
    train, test = (replace(part, x=part.x.reshape(-1, *network.input)) for part in (data.train, data.test))
    return replace(data, train=train, test=test)


def _known(name: str) -> _Known:
    known = _KNOWN.get(name.casefold())
    if known is None:
        near = nearest(name, _KNOWN)
        write = f"Write --dataset {near}." if near else "Write one of them."
        raise DataError(f"There is no data set {quoted(name)}; there are {listed(_KNOWN, 'and')}. {write}")
    return known


def _check(known: _Known, network: Network) -> None:
    misfit = _misfit(known, network)
    if misfit is not None:
        raise DataError(network.source.message(*misfit))


def _misfit(known: _Known, network: Network) -> tuple[Position, str] | None:
    """Return what does not fit and where it is written; None where the data fits."""
    if _squeezed(network.input) not in {_squeezed(known.shape), (prod(known.shape),)}:
        return network.input_at, (
            f"The images of {known.name} are {quoted(known.shape)}; the network's input is {quoted(network.input)}. "
            f"Write input: {quoted(known.shape)}, or choose another data set."
        )
    last = network.layers[-1]
    if last.output_shape != (known.classes,):
        flat = "" if len(last.output_shape) == 1 else "Flatten() before it and "
        return last.at, (
            f"{known.name} has {known.classes} classes; the output of {last.name} is {quoted(last.output_shape)}. "
            f'Write {flat}Output({known.classes}, "softmax").'
        )
    return None


def _part(arrays: dict[str, Any], part: str, known: _Known) -> Part:
    x = arrays[f"x_{part}"].astype(np.float32) / np.float32(known.white)
    return Part(x.reshape(-1, *known.shape), arrays[f"y_{part}"].astype(np.int64))


def _shipped(name: str) -> dict[str, Any]:
    with resources.files("neural.data").joinpath(f"{name}.npz").open("rb") as file:
        return dict(np.load(file, allow_pickle=False))


def _squeezed(shape: Shape) -> Shape:
    return tuple(extent for extent in shape if extent != 1)

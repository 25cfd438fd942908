"""What an observer measured of many tensors, put in its place: matrices, histograms and figures of a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from neural.session import histogram, statistics
from neural.session.frame import KINDS
from neural.session.histogram import Histograms, IntArray
from neural.session.statistics import FloatArray

_CODE_OF_BIN = histogram.counts_from_codes(np.arange(histogram.BINS))


def gather(
    measured: Sequence[tuple[str, int | None]], rows: FloatArray, counts: IntArray | None, heights: Mapping[str, int]
) -> tuple[dict[str, FloatArray], dict[str, Histograms]]:
    """Put what was measured in its place: matrices (height, 10) and histograms, by kind.

    `rows` (k, 10) and `counts` by code (k, 514; None: no histograms) are of the kinds and numbers `measured` (k); those
    of the same kind and number are merged, those without a number left out. `heights` tells how many layers and
    parameters there are.
    """
    places: dict[str, dict[int, list[int]]] = {}
    for place, (kind, number) in enumerate(measured):
        if number is not None:
            places.setdefault(kind, {}).setdefault(number, []).append(place)
    matrices: dict[str, FloatArray] = {}
    histograms: dict[str, Histograms] = {}
    for kind, of_kind in places.items():
        matrix = matrices[kind] = statistics.unmeasured(heights[KINDS[kind].rows])
        matrix[list(of_kind)] = rows[[group[0] for group in of_kind.values()]]
        several = {number: group for number, group in of_kind.items() if len(group) > 1}
        if several:
            starts = np.cumsum([0, *map(len, several.values())])[:-1]
            matrix[list(several)] = statistics.merge(rows[np.concatenate([*several.values()])], starts.tolist())
        if counts is not None:
            histograms[kind] = _histograms(of_kind, counts)
    return matrices, histograms


def figures_of(matrices: Mapping[str, FloatArray]) -> dict[str, float]:
    """Return the headline figures that the matrices of a frame tell: "gradient_norm" and "update_ratio"."""
    figures = {}
    if "gradients" in matrices:
        figures["gradient_norm"] = statistics.global_norm(matrices["gradients"])
    if "updates" in matrices and "weights" in matrices:
        figures["update_ratio"] = statistics.update_ratio(matrices["updates"], matrices["weights"])
    return figures


def _histograms(places: Mapping[int, Sequence[int]], counts: IntArray) -> Histograms:
    numbers = sorted(places)
    order = np.concatenate([places[number] for number in numbers])
    starts = np.cumsum([0, *(len(places[number]) for number in numbers)])[:-1]
    by_bin = np.add.reduceat(counts[order], starts)[:, _CODE_OF_BIN]
    row, column = np.nonzero(by_bin)
    return Histograms(np.stack([np.array(numbers)[row], column, by_bin[row, column]], axis=1))

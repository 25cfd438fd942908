"""Measure the arrays in `arrays.npz` with JAX; keep rows and counts by bin in `measured.npz`."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from neural.session.histogram import BINS, counts_from_codes
from neural_callbacks.keras.on_jax.statistics import measure, measured


def main():
    dtype = jnp.dtype(sys.argv[1])
    # Only where a user asks for them, arrays are of more than float32.
    jax.config.update("jax_enable_x64", dtype.itemsize > np.dtype(np.float32).itemsize)
    with np.load("arrays.npz") as given, np.errstate(over="ignore", invalid="ignore"):
        arrays = [jnp.asarray(given[name].astype(dtype)) for name in given]
    rows, codes = measured(measure(arrays), binned=True)
    counts = np.array([counts_from_codes(row) for row in codes]).reshape(len(rows), BINS)
    none = [part.shape for part in measured(measure([]), binned=True)]
    np.savez("measured.npz", rows=rows, counts=counts)
    json.dump([none, measured(measure(arrays[:1]), binned=False)[1]], sys.stdout)


if __name__ == "__main__":
    main()

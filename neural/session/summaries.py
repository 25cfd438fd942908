"""Frame <-> Summary protobuf: the tags, the plugin metadata and the format version of a session.

One Event holds one value: one matrix, one set of histograms, one JSON text, or one scalar. Every value carries its
metadata, so that a damaged record takes no other with it. A matrix lies column by column, as a tensor of shape
(columns, rows): one statistic over many steps is then read without the others. A reader refuses a newer major
version; a newer minor version may add tags, columns and JSON keys, which an older reader leaves aside.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2

from neural.session import anomaly, histogram, wire
from neural.session.anomaly import Anomaly
from neural.session.frame import KINDS, PROFILES, Frame
from neural.session.histogram import Histograms
from neural.session.info import SessionInfo
from neural.session.layers import LayerTable

PLUGIN_NAME = "neuraldbg"
VERSION = (1, 1)
PREFIX = f"{PLUGIN_NAME}/"
INFO_TAG = f"{PREFIX}session"
LAYERS_TAG = f"{PREFIX}layers"
ANOMALIES_TAG = f"{PREFIX}anomalies"
HISTOGRAMS_PREFIX = f"{PREFIX}histograms/"
SCALARS_PLUGIN = "scalars"

_NUMPY_TYPES: dict[int, np.dtype[Any]] = {
    types_pb2.DT_DOUBLE: np.dtype("<f8"),
    types_pb2.DT_FLOAT: np.dtype("<f4"),
    types_pb2.DT_INT64: np.dtype("<i8"),
    types_pb2.DT_UINT32: np.dtype("<u4"),
}
_PROTO_TYPES = {dtype: proto for proto, dtype in _NUMPY_TYPES.items()}


class NewerVersionError(ValueError):
    """A session written by a newer NeuralDbg than this one."""


class Value(NamedTuple):
    """One value of a session, as found in an event file.

    `columns` is empty for JSON texts and scalars; `metadata_size` is in bytes, as serialized.
    """

    tag: str
    step: int
    wall_time: float
    columns: tuple[str, ...]
    tensor: Any
    metadata_size: int


@lru_cache
def _metadata(columns: tuple[str, ...], description: str) -> bytes:
    content = json.dumps({"version": VERSION, "columns": columns}).encode()
    metadata = summary_pb2.SummaryMetadata(
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content),
        summary_description=description,
        data_class=summary_pb2.DATA_CLASS_TENSOR,
    )
    return wire.metadata_field(metadata.SerializeToString())


@lru_cache
def _scalar_metadata() -> bytes:
    metadata = summary_pb2.SummaryMetadata(
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name=SCALARS_PLUGIN),
        data_class=summary_pb2.DATA_CLASS_SCALAR,
    )
    return wire.metadata_field(metadata.SerializeToString())


@lru_cache
def _tensor_head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return a serialized TensorProto of that type and shape, up to its content."""
    dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=extent) for extent in shape]
    tensor = tensor_pb2.TensorProto(dtype=_PROTO_TYPES[dtype], tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=dims))
    serialized: bytes = tensor.SerializeToString()
    return serialized


def _array_event(tag: str, frame: Frame, metadata: bytes, array: NDArray[Any]) -> bytes:
    content = array.tobytes()
    parts = (_tensor_head(array.dtype, array.shape), wire.content_head(len(content)), content)
    return wire.event(tag, frame.step, frame.wall_time, parts, metadata)


def _text_event(tag: str, step: int, wall_time: float, text: str, description: str) -> bytes:
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[text.encode()])
    return wire.event(tag, step, wall_time, (tensor.SerializeToString(),), _metadata((), description))


def file_version_event(wall_time: float) -> bytes:
    """Return the event that every event file begins with."""
    serialized: bytes = event_pb2.Event(wall_time=wall_time, file_version="brain.Event:2").SerializeToString()
    return serialized


def info_event(info: SessionInfo, step: int, wall_time: float) -> bytes:
    """Return what the session says of itself as a serialized Event."""
    return _text_event(INFO_TAG, step, wall_time, info.to_json(), "what this session is of (JSON)")


def layers_event(table: LayerTable, step: int, wall_time: float) -> bytes:
    """Return the layer table as a serialized Event."""
    return _text_event(LAYERS_TAG, step, wall_time, table.to_json(), "the layers and parameters (JSON)")


def frame_events(frame: Frame) -> Iterator[bytes]:
    """Yield a serialized Event for each matrix, each set of histograms, each scalar and the anomalies of `frame`."""
    for name, matrix in frame.matrices.items():
        kind = KINDS[name]
        metadata = _metadata(kind.columns, f"statistics of {kind.description}")
        yield _array_event(PREFIX + name, frame, metadata, np.asarray(matrix, "<f8").T)
    for name, matrix in frame.profiles.items():
        kind = PROFILES[name]
        yield _array_event(PREFIX + name, frame, _metadata(kind.columns, kind.description), np.asarray(matrix, "<f8").T)
    for name, histograms in frame.histograms.items():
        entries = histograms.entries
        fits = not entries.size or int(entries.max()) <= np.iinfo(np.uint32).max
        metadata = _metadata(histogram.COLUMNS, f"log2 histograms of {KINDS[name].description}")
        yield _array_event(HISTOGRAMS_PREFIX + name, frame, metadata, entries.astype("<u4" if fits else "<i8").T)
    for name, scalar in frame.scalars.items():
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[np.float32(scalar)])
        yield wire.event(name, frame.step, frame.wall_time, (tensor.SerializeToString(),), _scalar_metadata())
    if frame.anomalies:
        text = anomaly.to_json(frame.anomalies)
        yield _text_event(ANOMALIES_TAG, frame.step, frame.wall_time, text, "what went wrong in the step (JSON)")


@lru_cache
def _columns(content: bytes) -> tuple[str, ...]:
    """Return the column names in a value's metadata; ValueError for what is not ours, or too new."""
    try:
        document = json.loads(content)
        major, minor = document["version"]
        columns = tuple(str(column) for column in document["columns"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"A value's metadata is not NeuralDbg's: {error!r}.") from error
    if major > VERSION[0]:
        raise NewerVersionError(
            f"It was written by a newer NeuralDbg (format {major}.{minor}; this one reads {VERSION[0]}.x): "
            "update tensorboard-plugin-neuraldbg."
        )
    return columns


def parse(data: bytes) -> Iterator[Value]:
    """Yield the values of a serialized Event that belong to a session; other plugins' values are passed over.

    Raises:
        NewerVersionError: the format's major version is newer than ours.
        ValueError: the bytes are no Event, or the metadata is damaged.
    """
    try:
        event = event_pb2.Event.FromString(data)
    except Exception as error:  # protobuf's DecodeError has no stable home across its versions
        raise ValueError("A record is no Event.") from error
    for value in event.summary.value:
        plugin = value.metadata.plugin_data
        if plugin.plugin_name == PLUGIN_NAME:
            columns = _columns(plugin.content)
        elif plugin.plugin_name == SCALARS_PLUGIN:
            columns = ()
        else:
            continue
        yield Value(value.tag, event.step, event.wall_time, columns, value.tensor, value.metadata.ByteSize())


def matrix_of(value: Value, columns: tuple[str, ...]) -> NDArray[Any]:
    """Return the matrix in `value`, (rows, len(columns)); a column that it lacks is NaN.

    Raises:
        ValueError: the tensor is no matrix with the columns that its metadata names.
    """
    array = _array_of(value.tensor)
    if array.ndim != 2 or array.shape[0] != len(value.columns):  # noqa: PLR2004 - a matrix has two axes
        raise ValueError(f"{value.tag} at step {value.step} has shape {array.shape}, not ({len(value.columns)}, rows).")
    if value.columns == columns:
        return array.T
    chosen = np.full((array.shape[1], len(columns)), np.nan)
    for position, column in enumerate(columns):
        if column in value.columns:
            chosen[:, position] = array[value.columns.index(column)]
    return chosen


def locate_matrix(data: bytes, value: Value, columns: tuple[str, ...]) -> tuple[int, int]:
    """Return where the float64 numbers of a matrix begin within `data`, the Event that holds it, and its rows.

    The place is -1 where it cannot be told from the end of `data`: other columns, another type, another order of
    fields; the rows are -1 where the tensor is no matrix.
    """
    dims = value.tensor.tensor_shape.dim
    if len(dims) != 2:  # noqa: PLR2004 - a matrix has two axes
        return -1, -1
    rows: int = dims[1].size
    size = rows * len(columns) * _NUMPY_TYPES[types_pb2.DT_DOUBLE].itemsize
    start = len(data) - wire.metadata_field_size(value.metadata_size) - size
    before = wire.content_head(size)
    is_there = (
        value.columns == columns
        and value.tensor.dtype == types_pb2.DT_DOUBLE
        and data[max(start - len(before), 0) : start] == before
    )
    return start if is_there else -1, rows


def histograms_of(value: Value) -> Histograms:
    """Return the histograms in `value`."""
    return Histograms(matrix_of(value, histogram.COLUMNS).astype(np.int64))


def anomalies_of(value: Value) -> tuple[Anomaly, ...]:
    """Return the anomalies in `value`, in the order in which they arose."""
    return anomaly.from_json(text_of(value))


def text_of(value: Value) -> str:
    """Return the text in `value`."""
    strings = value.tensor.string_val
    if len(strings) != 1:
        raise ValueError(f"{value.tag} at step {value.step} holds {len(strings)} texts, not one.")
    text: str = strings[0].decode()
    return text


def scalar_of(value: Value) -> float:
    """Return the number in `value`, a scalar summary of ours or of anyone else."""
    if value.tensor.float_val:
        return float(value.tensor.float_val[0])
    return float(_array_of(value.tensor).reshape(-1)[0])


def _array_of(tensor: tensor_pb2.TensorProto) -> NDArray[Any]:
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    dtype = _NUMPY_TYPES.get(tensor.dtype)
    if dtype is None:
        raise ValueError(f"A value has the protobuf type {tensor.dtype}, which no session holds.")
    return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)

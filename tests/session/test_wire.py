from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2

from neural.session import wire


@given(
    st.text(max_size=300),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=70_000),
    st.text(max_size=300),
)
def test_an_event_is_written_as_protobuf_writes_it(
    tag: str, step: int, wall_time: float, content: bytes, description: str
) -> None:
    tensor = tensor_pb2.TensorProto(dtype=2, tensor_content=content)
    metadata = summary_pb2.SummaryMetadata(summary_description=description)
    value = summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
    expected = event_pb2.Event(wall_time=wall_time, step=step, summary=summary_pb2.Summary(value=[value]))
    head = tensor_pb2.TensorProto(dtype=2).SerializeToString()
    field = wire.metadata_field(metadata.SerializeToString())
    actual = wire.event(tag, step, wall_time, (head, wire.content_head(len(content)), content), field)
    assert event_pb2.Event.FromString(actual) == expected
    assert len(field) == wire.metadata_field_size(metadata.ByteSize())


def test_an_ordinary_event_has_the_same_bytes() -> None:
    tensor = tensor_pb2.TensorProto(dtype=2, tensor_content=b"12345678")
    metadata = summary_pb2.SummaryMetadata(summary_description="d")
    value = summary_pb2.Summary.Value(tag="neuraldbg/weights", tensor=tensor, metadata=metadata)
    expected = event_pb2.Event(wall_time=3.5, step=300, summary=summary_pb2.Summary(value=[value]))
    field = wire.metadata_field(metadata.SerializeToString())
    assert wire.event("neuraldbg/weights", 300, 3.5, (tensor.SerializeToString(),), field) == (
        expected.SerializeToString()
    )

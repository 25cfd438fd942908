import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neural.session import statistics
from neural.session.frame import Frame
from neural.session.layers import Layer, LayerTable, Parameter
from neural.session.writer import SessionWriter
from tensorboard_plugin_neuraldbg.merging import LayerGroups

MAGNITUDES = st.sampled_from([1e-30, 1e-3, 1.0, 1e5, 1e30])


@st.composite
def frames(draw):
    """Draw the layers of some parameters, and each one's values in two frames (None: not measured)."""
    owners = draw(st.lists(st.integers(0, 3), min_size=1, max_size=7))
    values = st.none() | st.tuples(
        st.lists(st.floats(-9, 9) | st.sampled_from([0.0, np.nan, np.inf, -np.inf]), max_size=5), MAGNITUDES
    ).map(lambda drawn: np.array(drawn[0]) * drawn[1])
    return owners, [[draw(values) for _ in owners] for _ in range(2)]


def table_of(owners):
    layers = tuple(Layer(f"Dense_{n}", "Dense", str(n)) for n in range(4))
    return LayerTable(layers, tuple(Parameter("kernel", owner, (1,)) for owner in owners))


def row_of(values):
    return statistics.unmeasured(1)[0] if values is None else statistics.reference_row(values)


def expected(owners, frame, layer):
    members = [values for owner, values in zip(owners, frame, strict=True) if owner == layer and values is not None]
    return row_of(np.concatenate(members) if members else None)


@given(frames())
def test_every_column_is_that_of_the_layers_values_taken_together(drawn):
    owners, values = drawn
    groups = LayerGroups.of(table_of(owners))
    rows = np.array([[row_of(x) for x in frame] for frame in values])
    columns = {column: rows[..., column] for column in range(10)}
    merged = groups.merge_columns(columns, set(range(10)))
    for number, frame in enumerate(values):
        for group, layer in enumerate(groups.layers):
            wanted = expected(owners, frame, layer)
            got = np.array([merged[column][number, group] for column in range(10)])
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9 * np.nan_to_num(wanted[statistics.L2]))
        np.testing.assert_allclose(
            groups.merge(rows[number]),
            [[merged[column][number, group] for column in range(10)] for group in range(len(groups.layers))],
            rtol=1e-9,
            atol=1e-9 * np.nan_to_num(rows[..., statistics.L2]).max(),
        )


def test_a_column_is_merged_without_those_that_it_does_not_need():
    groups = LayerGroups.of(table_of([0, 0]))
    columns = {statistics.COUNT: np.array([[2.0, 3.0]]), statistics.L2: np.array([[3.0, 4.0]])}
    assert groups.merge_columns(columns, {statistics.L2})[statistics.L2].tolist() == [[5.0]]


def test_groups_are_the_layers_with_parameters_wherever_these_stand():
    groups = LayerGroups.of(table_of([2, 0, 2]))
    assert (groups.layers, groups.parameters) == ((0, 2), ((1,), (0, 2)))
    assert groups.members(2) == [0, 2]
    assert groups.members(1) == []


def test_a_parameter_that_a_frame_does_not_know_yet_counts_for_nothing():
    groups = LayerGroups.of(table_of([0, 0, 1]))
    merged = groups.merge(np.array([row_of(np.array([3.0])), row_of(np.array([4.0]))]))
    assert merged[0, statistics.L2] == pytest.approx(5.0)
    assert np.isnan(merged[1]).all()


def test_a_model_without_parameters_has_no_rows(serve, tmp_path):
    writer = SessionWriter(tmp_path / "neuraldbg")
    writer.write_layers(LayerTable((Layer("ReLU_1", "ReLU", "relu"),)), 0)
    writer.write(Frame(0, 0.0, {"gradients": statistics.unmeasured(0)}))
    writer.close()
    server = serve("--logdir", str(tmp_path), "--load_fast", "false")
    answer = server.ask("matrix", run=".", kind="gradients", statistic="l2", width=9, by="layer")
    assert answer.document["rows"] == []
    assert answer.arrays["minimum"].shape == (0, 1)
    assert server.ask("frame", run=".").arrays["gradients"].shape == (0, 10)

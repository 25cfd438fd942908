from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from neural.session.layers import Layer, LayerTable, Parameter, UnknownLayerError, canonical_names

TABLE = LayerTable(
    tuple(
        Layer(name, kind, own, ((None, 8),), ((None, 8, 4),))
        for name, kind, own in [
            ("Conv2D_1", "Conv2D", "features.0"),
            ("Conv2D_2", "Conv2D", "features.3"),
            ("Dense_1", "Dense", "head.fc"),
            ("fc", "Dense", "head.out"),
            ("Flatten_1", "Flatten", "flat"),
        ]
    ),
    (
        Parameter("weight", 0, (3, 3, 1, 8), "float32"),
        Parameter("bias", 0, (8,), "float32", trainable=False),
        Parameter("weight", 2, (8, 4), "float32"),
    ),
)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("Dense_1", (2,)),
        ("features.3", (1,)),
        ("dense_1", (2,)),
        ("HEAD.FC", (2,)),
        ("flatten", (4,)),
        ("Conv2D_*", (0, 1)),
        ("head.*", (2, 3)),
        ("*", (0, 1, 2, 3, 4)),
    ],
)
def test_a_name_is_found(wanted: str, expected: tuple[int, ...]) -> None:
    assert TABLE.resolve(wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("Dense", "'Dense' fits several layers: Dense_1, fc. Write one of them, or a glob."),
        ("Conv2D_3", "There is no layer 'Conv2D_3'. Write, for example, Conv2D_2, Conv2D_1."),
        ("LSTM_?", "There is no layer 'LSTM_?'. Write, for example, Conv2D_1, features.0, Conv2D_2."),
    ],
)
def test_a_name_that_fits_nothing_or_too_much_is_an_error_with_the_near_ones(wanted: str, message: str) -> None:
    with pytest.raises(UnknownLayerError) as caught:
        TABLE.resolve(wanted)
    assert str(caught.value) == message


def test_a_model_without_layers_says_so() -> None:
    with pytest.raises(UnknownLayerError, match=r"There is no layer 'x'\. The model has no layers\."):
        LayerTable(()).resolve("x")


def test_the_table_survives_json() -> None:
    assert LayerTable.from_json(TABLE.to_json()) == TABLE


def test_keys_of_a_newer_minor_version_are_left_aside() -> None:
    document = json.loads(TABLE.to_json())
    document["layers"][0]["colour"] = "blue"
    document["more"] = 1
    assert LayerTable.from_json(json.dumps(document)) == TABLE


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"layers": 3, "parameters": []}', '{"layers": [{}], "parameters": []}', "null"],
)
def test_a_damaged_table_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="The layer table is not one: "):
        LayerTable.from_json(text)


def test_a_parameter_of_no_layer_is_refused() -> None:
    text = json.dumps({"layers": [], "parameters": [asdict(TABLE.parameters[0])]})
    with pytest.raises(ValueError, match=r"The layer table has a parameter of a layer that it does not list\."):
        LayerTable.from_json(text)


def test_the_size_of_a_parameter_is_that_of_its_shape() -> None:
    assert TABLE.parameters[0].size == 72


def test_canonical_names_count_within_a_type_and_step_around_given_ones() -> None:
    types = ["Dense", "Conv2D", "Dense", "Dense", "Dense"]
    assert canonical_names(types) == ("Dense_1", "Conv2D_1", "Dense_2", "Dense_3", "Dense_4")
    given = ["Dense_2", None, None, None, "out"]
    assert canonical_names(types, given) == ("Dense_2", "Conv2D_1", "Dense_3", "Dense_4", "out")

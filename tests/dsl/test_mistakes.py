"""The whole text of every error of the language, kept as data in mistakes.yaml."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from neural.dsl.errors import MissingFileError, NetworkShapeError, NetworkSyntaxError, NeuralError
from neural.dsl.parser import parse, parse_file

MISTAKES = yaml.safe_load((Path(__file__).parent / "mistakes.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", MISTAKES, ids=[case["mistake"] for case in MISTAKES])
def test_a_mistake_is_answered_with_its_place_and_what_to_write(case):
    with pytest.raises((NetworkSyntaxError, NetworkShapeError)) as raised:
        parse(case["source"], "net.neural")
    assert f"{raised.value}\n" == case["error"]
    assert raised.value.exit_code == case["exit_code"]


def test_a_missing_file_is_answered_with_the_one_that_was_meant(tmp_path):
    (tmp_path / "mnist.neural").touch()
    with pytest.raises(MissingFileError) as raised:
        parse_file(tmp_path / "minst.neural")
    assert str(raised.value) == f"There is no file {tmp_path}/minst.neural. Write {tmp_path}/mnist.neural."
    assert raised.value.exit_code == 5


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(MissingFileError) as raised:
        parse_file(tmp_path / "away" / "net.neural")
    assert str(raised.value) == (
        f"There is no file {tmp_path}/away/net.neural. There is no folder {tmp_path}/away either. "
        "Write the path of a .neural file."
    )


def test_an_empty_folder_has_no_file_to_suggest(tmp_path):
    with pytest.raises(MissingFileError) as raised:
        parse_file(tmp_path / "net.neural")
    assert str(raised.value) == f"There is no file {tmp_path}/net.neural. Write the path of a .neural file."


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(NeuralError) as raised:
        parse_file(tmp_path)
    assert str(raised.value) == f"{tmp_path} cannot be read: Is a directory. Write the path of a .neural file."
    assert raised.value.exit_code == 1


def test_bytes_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "net.neural"
    path.write_bytes(b"network \xff")
    with pytest.raises(NetworkSyntaxError) as raised:
        parse_file(path)
    assert str(raised.value) == f"{path} is not text in UTF-8: byte 8 is 0xff. Write it as UTF-8 text."


WORDS = st.sampled_from(
    [
        *"{}()[]:,;=\"'#\n/\\*-+.%$\t\0\r é",
        *("network", "input", "layers", "loss", "train", "Dense", "Conv2D", "Input", "name", "units"),
        *("None", "true", "1", "-3", "0.5", "1e9", "1e-400", "9" * 50, '"relu"', "//", "/*", "*/"),
    ]
)
NETWORK = """network Net {
  input: (8, 8, 1)
  layers: Conv2D(4, 3, "relu") Flatten() Dense(units=3) Output(10, "softmax")
  loss: "mse" optimizer: "Adam(learning_rate=1e-3)" metrics: ["accuracy"] train { epochs: 5 }
}"""


@given(st.one_of(st.text(), st.lists(WORDS).map("".join), st.lists(WORDS).map(" ".join)))
def test_no_text_raises_anything_but_our_own_error(text):
    assert answer(text) is not None


@given(st.lists(WORDS, max_size=12).map(" ".join), st.integers(0, len(NETWORK)), st.integers(0, 12))
def test_no_damage_to_a_network_raises_anything_but_our_own_error(put_in, at, cut):
    said = answer(NETWORK[:at] + put_in + NETWORK[at + cut :])
    assert said is None or (said.startswith("net.neural:") and len(said) < 1500)


def answer(text):
    """Return what is answered to the text; None where it is a network."""
    try:
        parse(text, "net.neural")
    except NeuralError as error:
        return str(error)
    return None

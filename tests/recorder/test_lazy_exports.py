"""`import neural_callbacks` loads no framework, and names what is missing where one is."""

from __future__ import annotations

import builtins
import sys

import pytest

import neural_callbacks


def test_exported_names_are_listed():
    assert neural_callbacks.__all__ == ["NeuralDbg", "NeuralDbgCallback", "NeuralDbgLoop"]
    assert set(neural_callbacks.__all__) <= set(dir(neural_callbacks))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError) as caught:
        neural_callbacks.NeuralDebug  # noqa: B018 - the access is what is tested
    assert str(caught.value) == (
        "module 'neural_callbacks' has no attribute 'NeuralDebug'; it has NeuralDbg, NeuralDbgCallback, NeuralDbgLoop"
    )


@pytest.mark.parametrize(
    ("name", "framework", "extra"), [("NeuralDbg", "torch", "torch"), ("NeuralDbgCallback", "keras", "tensorflow")]
)
def test_a_framework_that_is_not_installed_is_named(name, framework, extra, monkeypatch):
    real_import = builtins.__import__

    def without(module, *arguments, **options):
        if module.partition(".")[0] == framework:
            raise ModuleNotFoundError(f"No module named {framework!r}", name=framework)
        return real_import(module, *arguments, **options)

    for module in [m for m in sys.modules if m.startswith(("neural_callbacks.pytorch", "neural_callbacks.keras"))]:
        monkeypatch.delitem(sys.modules, module)
    for package in ("pytorch", "keras"):  # else what is imported anew stays there in the place of the old one
        monkeypatch.delattr(neural_callbacks, package, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError) as caught:
        getattr(neural_callbacks, name)
    assert str(caught.value) == (
        f"{name} needs {framework}, which is not installed; write pip install 'tensorboard-plugin-neuraldbg[{extra}]'."
    )

"""A library that is not installed is named, with what to write."""

from __future__ import annotations

import builtins
import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("hub", "library"),
    [
        ("lightning", "lightning"),
        ("lightning", "torch"),
        ("transformers", "transformers"),
        ("transformers", "accelerate"),
        ("transformers", "torch"),
    ],
)
def test_a_library_that_is_not_installed_is_named(hub, library, monkeypatch):
    real_import = builtins.__import__

    def without(module, *arguments, **options):
        if module.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)
        return real_import(module, *arguments, **options)

    name = f"neural_callbacks.{hub}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module(name)
    assert str(caught.value) == (
        f"NeuralDbgCallback needs {library}, which is not installed; write "
        f"pip install 'tensorboard-plugin-neuraldbg[{hub}]'."
    )

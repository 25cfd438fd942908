"""Observes Keras models on the torch backend, by what observes PyTorch's own models."""

"""The observer of PyTorch training. `from neural_callbacks import NeuralDbg` is the way in."""

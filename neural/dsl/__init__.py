"""The .neural language: text in, a checked network out, and its builders for Keras and PyTorch."""

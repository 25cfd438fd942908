"""NeuralDbg: the .neural language, the `neural` command, and the debugging session on disk."""

"""How Keras trainings are timed: in one process with gears of ours, and in processes in turn with those of others."""

"""The training loops behind `neural run` and `neural debug`."""

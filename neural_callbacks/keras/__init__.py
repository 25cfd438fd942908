"""What observes training with Keras 3: the callback, its gears and its taps."""

"""What observes training with Keras on JAX."""

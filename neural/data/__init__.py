"""The data that networks are trained on."""

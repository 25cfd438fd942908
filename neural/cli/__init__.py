"""The `neural` command."""

"""How `overhead_pytorch.py` finds what watching a training costs, to half a percent, on a machine that is not quiet."""

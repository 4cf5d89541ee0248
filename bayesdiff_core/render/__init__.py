"""Uncertainty maps as pictures, in the layout of an image node: (B, H, W, 3) in [0, 1]."""

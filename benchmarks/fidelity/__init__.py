"""Fidelity: how close each method comes to brute force, and at what cost.

`truth` is brute force, `run` measures the methods against it, `report` writes docs/benchmarks.md
from the figures, and `pictures` draws docs/images/maps.png.
"""

"""Fidelity: how close each method comes to brute force, and at what cost.

`run` measures, `report` writes docs/benchmarks.md from the figures, and `pictures` draws
docs/images/maps.png.
"""

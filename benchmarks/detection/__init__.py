"""Detection: which signal finds what is malformed, and what dropping images by it gains.

`sections` plans what is measured, `run` and `costly` measure it, `candidate_signals` and `costs`
hold the signals under test, `table` and `filtering` their figures. `python -m benchmarks.detect`
starts it.
"""

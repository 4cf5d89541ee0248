"""Sampling regions of a recorded image again, and keeping the best of several candidates."""

"""Benchmarks: what the methods claim, measured on the bundled models."""

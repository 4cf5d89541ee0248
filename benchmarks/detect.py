"""Starts the detection benchmark: `python -m benchmarks.detect` (see `benchmarks.detection`)."""

from .detection.run import main

if __name__ == "__main__":
    main()

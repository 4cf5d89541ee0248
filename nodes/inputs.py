"""Inputs that several nodes share."""

from __future__ import annotations

from comfy_api.latest import io

from ..bayesdiff_core.uncertainty import SIGNALS

__all__ = ["signal_input"]


def signal_input(tooltip: str = "") -> io.Input:
    """Which signal of a run.

    Arguments:
        tooltip: What it is chosen for; a line about each of the signals follows.

    Returns:
        The input `signal`.
    """
    lines = [tooltip] if tooltip else []
    return io.Combo.Input(
        "signal",
        options=list(SIGNALS),
        default="artifact",
        tooltip="\n".join([*lines, *(f"{name}: {kind.text}." for name, kind in SIGNALS.items())]),
    )

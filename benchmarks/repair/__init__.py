"""Repair: whether sampling a malformed region again mends it, against sampling the image anew.

`cases` samples quadrants again, `loop` finds, masks and repairs without an oracle, `run` measures
both.
"""

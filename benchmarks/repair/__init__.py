"""Repair: whether sampling a malformed region again mends it, against sampling the image anew.

`cases` samples quadrants again and `run` judges them; `loop` finds, masks and repairs without an
oracle, and `loop_figures` says what that gains. `subjects` holds scenes and rules.
"""

"""Detection and filtering measured on a checkpoint of one's own, through the host.

`workflow` finds the sampler in an exported workflow, `host` runs it, `runs` keeps images, maps and
scores, `labelling_page`, `truth` and `clip` say what is malformed, `figures` and `contact_sheet`
show what the signals made of it. How to use it: docs/checkpoints.md.
"""


class CheckpointError(Exception):
    """The measurement cannot go on; the sentence says why and what to do."""

"""The command line of rlhf: options become one call, and its result is shown."""

__version__ = "0.1.0"
PARENT_PIPE_VARIABLE = "RLHF_PARENT_PIPE"
"""Descriptor by which a child of `rlhf all` notices that its parent is gone."""

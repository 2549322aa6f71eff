"""The command line of rlhf: options become one call, and its result is shown."""

__version__ = "0.1.0"

"""The command line of rlhf: it turns options into one call and shows what comes back."""

__version__ = "0.1.0"

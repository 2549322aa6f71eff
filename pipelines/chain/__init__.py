"""The table of stages, and how a chain of them is planned, checked and run. Never imports torch."""

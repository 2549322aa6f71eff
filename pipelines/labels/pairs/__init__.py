"""Training rows from labels."""

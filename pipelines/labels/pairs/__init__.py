"""Labels become rows to train on."""

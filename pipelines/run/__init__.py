"""The run directory, its manifests, checkpoints and locks, and what a stage is. Never imports torch."""

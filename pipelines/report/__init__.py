"""Statistics, estimates with intervals, and text that is safe to show."""

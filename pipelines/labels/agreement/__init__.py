"""Agreement between annotators, and patterns of careless work."""

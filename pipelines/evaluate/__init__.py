"""Policies compared on held-out prompts."""

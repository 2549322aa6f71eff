"""Completions of any models for given prompts."""

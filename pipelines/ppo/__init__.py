"""Proximal policy optimization on a language model."""

"""Formats of other programs: tasks and labels in and out, training rows out."""

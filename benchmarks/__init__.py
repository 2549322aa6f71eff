"""Measurements: run by hand or on a GPU machine, never by the tests but in their smallest form."""

"""Data: any accepted format in, four kinds of canonical row out; the split, and the one encoder."""

"""Any accepted format in, four kinds of canonical row out; checks, the split, and the one encoder."""

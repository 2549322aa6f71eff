"""The report of a run as one HTML page, and runs compared."""

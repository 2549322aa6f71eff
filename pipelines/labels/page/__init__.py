"""The label page: where people judge tasks in a browser. Starlette and Jinja2, no torch."""

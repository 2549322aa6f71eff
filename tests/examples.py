"""How many examples a property is tried on: 30 % of them by default, all with EXAMPLES=full (`make slow`)."""

from __future__ import annotations

import math
import os


def examples(full: int) -> int:
    return full if os.environ.get("EXAMPLES") == "full" else math.ceil(0.3 * full)

"""``python -m rlhf_cli`` is ``rlhf``."""

import os
import signal


def main() -> None:
    """Entry point of ``rlhf``. Ctrl-C ends it without a traceback, also while it is being imported."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    from rlhf_cli.app import main as of_app

    of_app()


if __name__ == "__main__":
    main()

"""``python -m rlhf_cli`` is ``rlhf``."""

from rlhf_cli.app import main

if __name__ == "__main__":
    main()

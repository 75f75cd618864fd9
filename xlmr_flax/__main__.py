"""The entry point of the command, as `xlmr-flax` and `python -m xlmr_flax`."""

import sys

from xlmr_flax.util.stopping import end_at_once


def main() -> int:
    """Runs one command and returns its exit code (`cli.main.main`)."""
    end_at_once()
    from xlmr_flax.cli.main import main as run  # takes a moment, in which a signal may arrive

    return run()


if __name__ == '__main__':
    sys.exit(main())

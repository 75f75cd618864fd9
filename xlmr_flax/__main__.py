"""python -m xlmr_flax = the xlmr-flax command."""

import sys

from xlmr_flax.cli.main import main

if __name__ == '__main__':
    sys.exit(main())

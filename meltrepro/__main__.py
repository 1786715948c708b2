"""`python -m meltrepro`."""

import sys

from meltrepro.cli.app import main

if __name__ == "__main__":
    sys.exit(main())

"""The command line as `python -m selmem`."""

import sys

from selmem.cli import main

if __name__ == "__main__":
    sys.exit(main())

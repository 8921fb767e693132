"""`python -m staged` is the `staged` command."""

import sys

from staged.cli import main

if __name__ == "__main__":
    sys.exit(main())

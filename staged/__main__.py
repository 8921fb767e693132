"""`python -m staged` is the `staged` command."""

import os
import sys
from pathlib import Path

# Python looks into the working directory first. There is the user's own work, of whatever names,
# unless it is the checkout itself.
if sys.path[:1] in ([""], [os.getcwd()]) and Path.cwd() != Path(__file__).resolve().parents[1]:
    del sys.path[0]

from staged.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m gladient` is `gladient`."""

import sys

from gladient.cli import main

if __name__ == "__main__":
    sys.exit(main())

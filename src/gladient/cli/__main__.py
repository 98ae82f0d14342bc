"""`python -m gladient.cli` is `gladient`."""

import sys

from gladient.cli import main

sys.exit(main())

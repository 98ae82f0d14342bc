"""The tiny models are those of the lens."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "lens"))

"""The folder's own modules, and its tests' freedom from our strictness: warnings of other libraries are theirs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

"""For all tests: they import `running` and what scripts/ holds; none of laws fails because the machine is busy."""

import sys
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

settings.register_profile("karp", deadline=None)
settings.load_profile("karp")

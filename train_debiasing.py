"""Pure debiasing: the guide's own command. The same as ``isentropic train``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from isentropic.cli import train_main

if __name__ == "__main__":
    sys.exit(train_main("train_debiasing.py"))

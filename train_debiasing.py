"""Pure debiasing: the guide's own command. The same as ``isentropic train``."""

import sys

from isentropic.cli import train_main

if __name__ == "__main__":
    sys.exit(train_main("train_debiasing.py"))

"""Gender detection and the counterfactual twin."""

from isentropic.prompts.swap.names import TokenCount
from isentropic.prompts.swap.reading import Change
from isentropic.prompts.swap.swap import (
    MOST_CHOICES,
    Chooser,
    Detection,
    Swap,
    detect,
    lm_chooser,
    other_script,
    swap,
    swapper,
)

__all__ = [
    "Change",
    "Chooser",
    "Detection",
    "MOST_CHOICES",
    "Swap",
    "TokenCount",
    "detect",
    "lm_chooser",
    "other_script",
    "swap",
    "swapper",
]

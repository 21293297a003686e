"""isentropic: equal entropy for every group.

The public names, each beside the file it comes from. They are imported at first use, so that ``import isentropic``
and ``--help`` stay instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "DebiasingLoss": "losses",
    "GEELoss": "losses",
    "EntropyScorer": "scorer",
    "token_entropy": "entropy",
    "entropy_from_hidden": "entropy",
    "paired_gap": "gap",
    "unpaired_gap": "gap",
    "verdict": "gap",
    "Prompt": "prompts",
    "PromptSet": "prompts",
    "load_prompts": "prompts",
    "Sampling": "responses",
    "load_model": "models",
    "comparison": "compare",
    "DebiasingConfig": "trainer",
    "DebiasingTrainer": "trainer",
    "InputError": "errors",
}

__all__ = [
    "DebiasingConfig",
    "DebiasingLoss",
    "DebiasingTrainer",
    "EntropyScorer",
    "GEELoss",
    "InputError",
    "Prompt",
    "PromptSet",
    "Sampling",
    "comparison",
    "entropy_from_hidden",
    "load_model",
    "load_prompts",
    "paired_gap",
    "token_entropy",
    "unpaired_gap",
    "verdict",
]

if TYPE_CHECKING:
    from isentropic.compare import comparison
    from isentropic.entropy import entropy_from_hidden, token_entropy
    from isentropic.errors import InputError
    from isentropic.gap import paired_gap, unpaired_gap, verdict
    from isentropic.losses import DebiasingLoss, GEELoss
    from isentropic.models import load_model
    from isentropic.prompts import Prompt, PromptSet, load_prompts
    from isentropic.responses import Sampling
    from isentropic.scorer import EntropyScorer
    from isentropic.trainer import DebiasingConfig, DebiasingTrainer


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"isentropic.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'isentropic' has no attribute {name!r}")

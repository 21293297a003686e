"""isentropic: equal entropy for every group.

The public names, each beside the folder it comes from. They are imported at first use, so that
``import isentropic`` and ``--help`` stay instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "DebiasingLoss": "losses",
    "GEELoss": "losses",
    "EntropyScorer": "entropy",
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
    "comparison": "measure",
    "DebiasingConfig": "training.config",
    "DebiasingTrainer": "training.trainer",
    "InputError": "errors",
}

__all__ = sorted(_NAMES)

if TYPE_CHECKING:
    from isentropic.entropy.engine import entropy_from_hidden
    from isentropic.entropy.reference import token_entropy
    from isentropic.entropy.scorer import EntropyScorer
    from isentropic.errors import InputError
    from isentropic.gap.estimate import paired_gap, unpaired_gap
    from isentropic.gap.verdict import verdict
    from isentropic.losses import DebiasingLoss, GEELoss
    from isentropic.measure.compare import comparison
    from isentropic.models.load import load_model
    from isentropic.prompts.load import load_prompts
    from isentropic.prompts.prompt_set import Prompt, PromptSet
    from isentropic.responses.response import Sampling
    from isentropic.training.config import DebiasingConfig
    from isentropic.training.trainer import DebiasingTrainer


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"isentropic.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'isentropic' has no attribute {name!r}")

"""Rows in, prompts and pairs out."""

from isentropic.prompts.builtin import builtin
from isentropic.prompts.load import (
    DETECTED,
    GENDER_NAMES,
    GROUP_COLUMNS,
    SPLIT_NAMES,
    TEXT_COLUMNS,
    Swapped,
    Swapper,
    load_prompts,
)
from isentropic.prompts.preview import prompts_preview, write_prompts
from isentropic.prompts.prompt_set import Prompt, PromptSet, Unit
from isentropic.prompts.split import MIN_TOPICS

__all__ = [
    "DETECTED",
    "GENDER_NAMES",
    "GROUP_COLUMNS",
    "MIN_TOPICS",
    "Prompt",
    "PromptSet",
    "SPLIT_NAMES",
    "Swapped",
    "Swapper",
    "TEXT_COLUMNS",
    "Unit",
    "builtin",
    "load_prompts",
    "prompts_preview",
    "write_prompts",
]

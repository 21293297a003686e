"""What a response is: how it is drawn, and a prompt with one after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from isentropic.prompts.prompt_set import Prompt
from isentropic.settings import MeasureSettings, SamplingSettings

Tokens = tuple[int, ...]
Job = tuple[Tokens, int]
Jobs = Sequence[Job]
"""Prompts to be answered, each with the number of the answer."""
Entropies = dict[tuple[Tokens, Tokens], float]
"""Prompt and response -> response entropy in nats."""
Progress = Callable[[int, int], None]  # (done, total)
"""Called after each batch with how many are done and how many there are."""


class Draw(IntEnum):
    """What is added to the seed of a run for each kind of draw, so that no two share their random numbers."""

    TRAINING = 0
    VALIDATION = 1
    NEUTRAL = 2
    GUARD = 3
    TEST = 4
    REFRESHED = 1000
    """The first of those that ``--refresh_responses`` draws, one more each time."""


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn.

    Args:
        max_new_tokens: the longest response, in tokens.
        sample_temp: the sampling temperature; 0 is greedy. (Entropy itself is always that of temperature 1.)
        num_responses: responses drawn from each prompt.
        seed: the same seed, prompt and model give the same response, whatever else is in the batch.
        chat: apply the tokenizer's chat template to the prompt.
        system: the system message of the chat, if any.
        chat_template_kwargs: more options for the chat template, as a JSON object.
    """

    max_new_tokens: int = SamplingSettings.max_new_tokens
    sample_temp: float = SamplingSettings.sample_temp
    num_responses: int = SamplingSettings.num_responses
    seed: int = MeasureSettings.seed
    chat: bool = False
    system: str | None = None
    chat_template_kwargs: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with a response after it: what is scored.

    With own responses ``source`` is the prompt's own group. With shared responses each prompt is scored on
    the responses of all its twins, and ``source`` says whose it was.
    """

    prompt: Prompt
    prompt_ids: Tokens
    response_ids: Tokens
    source: str
    sample: int = 0

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)

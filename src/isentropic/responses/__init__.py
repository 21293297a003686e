"""Responses: sampled, stored, put into batches."""

from isentropic.responses.batches import (
    TOKENS_A_BATCH,
    Item,
    StratifiedSampler,
    collate_examples,
    collate_items,
    collate_rows,
    pack,
    prompt_tuples,
    row_length,
    token_batches,
)
from isentropic.responses.cache import keep, kept_file, read_kept
from isentropic.responses.encode import chat_line, encode_prompts, end_tokens, follows_chat
from isentropic.responses.generating import own_generation_config
from isentropic.responses.response import Example, Progress, Sampling, Tokens
from isentropic.responses.sample import (
    InverseSampler,
    ResponseSampler,
    own_examples,
    sample_responses,
    shared_examples,
    uniform_numbers,
    until_end,
)

__all__ = [
    "Example",
    "InverseSampler",
    "Item",
    "Progress",
    "ResponseSampler",
    "Sampling",
    "StratifiedSampler",
    "TOKENS_A_BATCH",
    "Tokens",
    "chat_line",
    "collate_examples",
    "collate_items",
    "collate_rows",
    "encode_prompts",
    "end_tokens",
    "follows_chat",
    "keep",
    "kept_file",
    "own_examples",
    "own_generation_config",
    "pack",
    "prompt_tuples",
    "read_kept",
    "row_length",
    "sample_responses",
    "shared_examples",
    "token_batches",
    "uniform_numbers",
    "until_end",
]

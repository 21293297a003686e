"""Token entropy and response entropy of a model."""

from isentropic.entropy.engine import (
    CPU_TILE_BYTES,
    DEFAULT_CHUNK_BYTES,
    Head,
    call,
    entropy_from_hidden,
    recomputed,
    values_of,
    weighted_entropy,
)
from isentropic.entropy.fits import LONGEST_ROW, Engine
from isentropic.entropy.reference import (
    EntropySums,
    Quantity,
    at_least_float32,
    refuse_empty,
    token_entropy,
    token_surprisal,
)
from isentropic.entropy.scorer import EntropyScorer

__all__ = [
    "CPU_TILE_BYTES",
    "DEFAULT_CHUNK_BYTES",
    "Engine",
    "EntropyScorer",
    "EntropySums",
    "Head",
    "LONGEST_ROW",
    "Quantity",
    "at_least_float32",
    "call",
    "entropy_from_hidden",
    "recomputed",
    "refuse_empty",
    "token_entropy",
    "token_surprisal",
    "values_of",
    "weighted_entropy",
]

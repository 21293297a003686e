"""Measurements, their summary and their comparison."""

from isentropic.measure.compare import comparison
from isentropic.measure.cost import (
    KL_TOKENS_A_BATCH,
    REFERENCE_BYTES,
    NeutralReference,
    answers_of,
    neutral_examples,
    perplexity,
    ratio_with_interval,
    read_text,
    text_tokens,
)
from isentropic.measure.measurement import Measurement, make_items, measure
from isentropic.measure.score import score_examples, score_items
from isentropic.measure.summary import (
    answer_figures,
    distinct_ngrams,
    floor_of,
    group_entropies,
    quality,
    summarise,
    topics_of,
    versions,
)

__all__ = [
    "KL_TOKENS_A_BATCH",
    "Measurement",
    "NeutralReference",
    "REFERENCE_BYTES",
    "answer_figures",
    "answers_of",
    "comparison",
    "distinct_ngrams",
    "floor_of",
    "group_entropies",
    "make_items",
    "measure",
    "neutral_examples",
    "perplexity",
    "quality",
    "ratio_with_interval",
    "read_text",
    "score_examples",
    "score_items",
    "summarise",
    "text_tokens",
    "topics_of",
    "versions",
]

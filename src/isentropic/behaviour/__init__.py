"""Public tests of stereotypes: read, scored by log-likelihood, compared item by item."""

from isentropic.behaviour.paired import PairedBehaviour
from isentropic.behaviour.score import Scores, log_likelihoods, score_test_items
from isentropic.behaviour.sets import SETS, BenchmarkSet, Item
from isentropic.behaviour.source import LoadedSet, read_sets
from isentropic.behaviour.summary import stereoset_scores

__all__ = [
    "BenchmarkSet",
    "Item",
    "LoadedSet",
    "PairedBehaviour",
    "SETS",
    "Scores",
    "log_likelihoods",
    "read_sets",
    "score_test_items",
    "stereoset_scores",
]

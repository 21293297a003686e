"""Several models on the same items: what each says, and how the later ones differ from the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from isentropic.behaviour.score import Scores, score_test_items
from isentropic.behaviour.source import LoadedSet
from isentropic.behaviour.summary import (
    GATE,
    clusters_of,
    differences,
    estimate,
    figures,
    gate,
    move,
    undecided,
)
from isentropic.entropy.scorer import EntropyScorer
from isentropic.measure.summary import versions
from isentropic.models.model import LoadedModel
from isentropic.responses.response import Progress
from isentropic.schema import (
    BEHAVIOUR_SCHEMA,
    Behaviour,
    BehaviourChange,
    BehaviourModel,
    BehaviourSet,
)

GATE_ITEMS = 400
"""Questions that the gate asks, evenly spaced over those whose context gives the answer."""


class PairedBehaviour:
    """Score models one after another on the same sets; the first is what the others are compared with.

    Args:
        sets: what `read_sets` gives.
        margin: nats; a change that lies within it counts as none.

    Example:
        ::

            tests = PairedBehaviour(read_sets("benchmarks", "winogender"))
            for name in ("smollm2-135m", "runs/demo/final"):
                tests.score(name, load_model(name))
            tests.result()["sets"][0]["changes"][0]["mean"]
    """

    def __init__(self, sets: Sequence[LoadedSet], margin: float = 0.05) -> None:
        self.sets, self.margin = list(sets), margin
        self.models: list[BehaviourModel] = []
        self.scores: dict[str, list[Scores | None]] = {one.name: [] for one in sets}
        self.notes = [f"{one.name}: {note}" for one in sets for note in one.notes]
        self.vocabulary: dict[str, int] = {}
        self.other_tokens: set[str] = set()

    def score(
        self,
        name: str,
        loaded: LoadedModel,
        *,
        scorer: EntropyScorer | None = None,
        bf16: bool = False,
        bar: Callable[[str], Progress] | None = None,
    ) -> None:
        """Score one more model.

        Args:
            name: what it is called in the result.
            scorer: one that has scored the model, so that the model need not be tried again.
            bf16: whether its body runs in bfloat16.
            bar: called with a stage, gives what shows its progress.

        Raises:
            InputError: as `score_test_items`.
        """
        vocabulary = loaded.tokenizer.get_vocab()
        if self.models and vocabulary != self.vocabulary:
            self.notes.append(
                f"{name} has a different tokenizer from {self.models[0]['name']}: log-likelihoods of whole "
                "sentences compare all the same; StereoSet's scores per token do not and are not compared"
            )
            self.other_tokens.add(name)
        self.vocabulary = self.vocabulary or vocabulary
        how: dict[str, Any] = {"scorer": scorer or EntropyScorer(), "bf16": bf16}
        for one in self.sets:
            progress = bar(f"{name}: {one.name}") if bar else None
            passed = one.benchmark.form != "continuation" or self._passes(name, loaded, one, how)
            found = (
                score_test_items(loaded, one.benchmark, one.items, progress=progress, **how)
                if passed
                else None
            )
            self.scores[one.name].append(found)
        self.models.append({"name": name, "sha256": loaded.sha256, "bf16": bf16})

    def _passes(self, name: str, loaded: LoadedModel, one: LoadedSet, how: dict[str, Any]) -> bool:
        decided = [item for item in one.items if item.answer in (0, 1)]
        asked = decided[:: -(-len(decided) // GATE_ITEMS)]
        passed, accuracy = gate(asked, score_test_items(loaded, one.benchmark, asked, **how))
        if not passed:
            self.notes.append(
                f"{one.name} is left out for {name}: it answers {100 * (accuracy['value'] or 0):.0f} % of "
                f"{len(asked)} questions whose context gives the answer, which is not clearly more than the "
                f"{100 * GATE:.0f} % of one who guesses between the two people; a guess would look fair"
            )
        return passed

    def result(self) -> Behaviour:
        """The figures of each model on each set, and the paired changes against the first."""
        return {
            "schema": BEHAVIOUR_SCHEMA,
            "margin": self.margin,
            "models": self.models,
            "sets": [self._summary(one) for one in self.sets if any(self.scores[one.name])],
            "versions": versions(),
            "notes": self.notes,
        }

    def _summary(self, one: LoadedSet) -> BehaviourSet:
        told = undecided(one.items)
        clusters = clusters_of([one.items[i] for i in told])
        names, found = [model["name"] for model in self.models], self.scores[one.name]
        return {
            "name": one.name,
            "sides": list(one.benchmark.sides),
            "unit": "items" if clusters is None else one.benchmark.unit,
            "form": one.benchmark.form,
            "n_items": len(told),
            "n_clusters": len(told if clusters is None else set(clusters)),
            "models": [
                figures(name, one.benchmark, one.items, scores)
                for name, scores in zip(names, found, strict=True)
                if scores
            ],
            "changes": [
                self._change(name, names[0], one, (found[0], scores))
                for name, scores in zip(names[1:], found[1:], strict=True)
                if found[0] and scores and not (one.benchmark.form == "mean" and name in self.other_tokens)
            ],
        }

    def _change(
        self, name: str, against: str, one: LoadedSet, scores: tuple[Scores, Scores]
    ) -> BehaviourChange:
        told = undecided(one.items)
        before, after = (differences(found)[told] for found in scores)
        clusters = clusters_of([one.items[i] for i in told])
        return {
            "model": name,
            "against": against,
            "mean": move(after - before, clusters, self.margin),
            "mean_abs": move(abs(after) - abs(before), clusters, self.margin),
            "percent": estimate(100.0 * (after > 0) - 100.0 * (before > 0), clusters),
        }

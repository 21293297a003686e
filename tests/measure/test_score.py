"""Scores and measurements against the model's own logits."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from isentropic.entropy.scorer import EntropyScorer
from isentropic.errors import InputError
from isentropic.measure.measurement import make_items, measure
from isentropic.measure.score import score_examples, score_items
from isentropic.models.identity import model_sha256
from isentropic.models.model import LoadedModel
from isentropic.prompts.prompt_set import PromptSet
from isentropic.responses.batches import TOKENS_A_BATCH
from isentropic.responses.response import Sampling
from isentropic.responses.sample import ResponseSampler
from oracles import naive_entropies
from tiny import make_tokenizer

GENDERS = ("male", "female")
# The keys that the documented schema promises.
REQUIRED = set(
    """
    schema H_male H_female H_mean gap se ci95 df n_pairs n_clusters cluster_unit mean_abs_pair_gap pair_gap_sd pair_gaps
    target_gap verdict pairs_needed p_within p_exceeds noise_floor topics cells own decomposition quality warnings label
    group_gaps groups model model_sha256 data data_sha256 responses seed unit settings versions
""".split()
)


def strict(summary: dict) -> dict:
    """Through JSON that has no NaN and back."""
    return json.loads(json.dumps(summary, allow_nan=False))


# --- With a model ---------------------------------------------------------------------------------------------------


@pytest.fixture
def test_pairs(tiny_prompts):
    return tiny_prompts.split("test")


def sampler_of(loaded, sampling=Sampling()):  # noqa: B008 - frozen
    return ResponseSampler(loaded.model, loaded.tokenizer, sampling)


def test_scores_are_those_of_each_example_alone(tiny_loaded, test_pairs):
    items = make_items(test_pairs, sampler_of(tiny_loaded), shared=True)
    tiny_loaded.model.train()
    scores = score_items(tiny_loaded.model, EntropyScorer(), items, pad=0)
    assert tiny_loaded.model.training
    tiny_loaded.model.eval()
    for item, values in zip(items, scores, strict=True):
        for example, value in zip(item.examples, values, strict=True):
            with torch.no_grad():
                alone = naive_entropies(tiny_loaded.model, example.prompt_ids, example.response_ids)
            assert value == pytest.approx(alone.mean().item(), abs=1e-4)


@pytest.mark.parametrize("shared", [True, False])
def test_packed_rows_are_scored_as_rows_of_their_own_within_the_budget(tiny_loaded, test_pairs, shared):
    items = make_items(test_pairs, sampler_of(tiny_loaded, Sampling(num_responses=3)), shared=shared)
    sizes = []

    def watch(_model, _args, kwargs):
        sizes.append(kwargs["input_ids"].numel())

    model = tiny_loaded.model
    with model.register_forward_pre_hook(watch, with_kwargs=True):
        packed = score_items(model, EntropyScorer(), items, pad=0)
        most, tokens = max(sizes), sum(sizes)
        sizes.clear()
        alone = score_items(model, Unpacked(), items, pad=0)
    np.testing.assert_allclose(np.concatenate(packed), np.concatenate(alone), atol=1e-5)
    assert most <= TOKENS_A_BATCH
    assert tokens < 0.75 * sum(sizes)


class Unpacked(EntropyScorer):
    def longest_row(self, model):
        return 0


def test_progress_of_scoring_ends_at_the_total(tiny_loaded, test_pairs):
    items = make_items(test_pairs, sampler_of(tiny_loaded, Sampling(num_responses=8)), shared=True)
    examples = [example for item in items for example in item.examples]
    told = []
    score_examples(
        tiny_loaded.model,
        EntropyScorer(),
        examples,
        pad=0,
        progress=lambda done, total: told.append((done, total)),
    )
    assert len(told) > 1 and told[-1] == (len(examples), len(examples))


def test_measure_has_every_promised_key_and_is_the_summary_of_its_entropies(tiny_loaded, test_pairs):
    found = measure(tiny_loaded, test_pairs, sampling=Sampling(seed=3, max_new_tokens=6))
    summary = strict(found.summary)
    assert set(summary) >= REQUIRED
    assert (summary["schema"], summary["seed"], summary["unit"]) == ("isentropic.measure/1", 3, "nats")
    assert summary["data_sha256"] == test_pairs.sha256 and summary["model_sha256"] == tiny_loaded.sha256
    assert {"isentropic", "torch", "transformers", "python"} <= set(summary["versions"])
    assert (
        summary["settings"]["max_new_tokens"] == 6 and summary["n_pairs"] == 12 and summary["n_clusters"] == 6
    )
    assert [cell["cell"] for cell in summary["cells"]] == ["new occupations", "both new"]
    gaps = [v[2:].mean() - v[:2].mean() for v in found.entropies]
    assert summary["gap"] == pytest.approx(np.mean(gaps)) and [len(v) for v in found.entropies] == [4] * 12
    assert summary["gap"] == pytest.approx(summary["H_female"] - summary["H_male"])
    assert 0 < summary["quality"]["distinct_2"] <= 1 and 1 <= summary["quality"]["mean_length"] <= 6


def test_the_same_seed_measures_the_same_and_another_does_not(tiny_loaded, test_pairs):
    gaps = [
        measure(tiny_loaded, test_pairs, sampling=Sampling(seed=seed)).summary["gap"] for seed in (0, 0, 1)
    ]
    assert gaps[0] == gaps[1] != gaps[2]


def test_own_of_a_shared_measurement_is_the_measurement_on_own_responses(tiny_loaded, test_pairs):
    shared = measure(tiny_loaded, test_pairs).summary
    own = measure(tiny_loaded, test_pairs, responses="own").summary
    for key in ("gap", "se", "n_pairs"):
        assert shared["own"][key] == pytest.approx(own[key], rel=1e-4)
    assert shared["own"]["verdict"] == own["verdict"]
    assert shared["responses"] == "shared" and own["responses"] == "own" and own["own"] is None


def test_given_items_are_scored_and_nothing_is_sampled(tiny_loaded, test_pairs, monkeypatch):
    first = measure(tiny_loaded, test_pairs)

    def never(*args, **kwargs):
        raise AssertionError("something was sampled")

    monkeypatch.setattr(tiny_loaded.model, "generate", never)
    second = measure(tiny_loaded, test_pairs, items=first.items)
    assert second.summary == first.summary


def test_prompts_without_twins(tiny_loaded, test_pairs):
    prompts = tuple(dataclasses.replace(p, pair_id=None) for p in test_pairs.prompts[:-2])
    found = measure(tiny_loaded, PromptSet(prompts, GENDERS, "unpaired"))
    summary = strict(found.summary)
    assert summary["responses"] == "own" and not summary["twins"] and summary["n_pairs"] == 22
    assert (summary["cluster_unit"], summary["n_clusters"]) == ("topic", 6)
    means = [
        np.mean([v[0] for i, v in zip(found.items, found.entropies, strict=True) if i.prompts[0].group == g])
        for g in GENDERS
    ]
    assert (summary["H_male"], summary["H_female"]) == pytest.approx(tuple(means))
    assert summary["noise_floor"]["floor"] > 0


def test_a_model_that_answers_only_with_the_end_token(tiny_model, tiny_tokenizer, test_pairs):
    """Certain of the end everywhere: entropy 0 for all, and no interval made of it."""
    model = tiny_model()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.fill_(1.0)
        model.lm_head.weight.zero_()
        model.lm_head.weight[0] = 10.0
    found = measure(LoadedModel(model, tiny_tokenizer, "ends", model_sha256(model)), test_pairs)
    assert {e.response_ids for item in found.items for e in item.examples} == {(0,)}
    summary = strict(found.summary)
    assert summary["H_male"] == pytest.approx(0, abs=1e-6) and summary["se"] is None
    assert summary["verdict"] == "insufficient" and summary["warnings"]
    assert summary["quality"] == {
        "mean_entropy": pytest.approx(0, abs=1e-6),
        "mean_length": 1.0,
        "ended": 1.0,
        "distinct_2": None,
        "perplexity": None,
    }


def test_responses_of_one_token_each_are_scored(tiny_loaded, test_pairs):
    tiny_loaded.model.generation_config.eos_token_id = list(range(320))
    summary = strict(measure(tiny_loaded, test_pairs).summary)
    assert summary["quality"]["mean_length"] == 1.0 and summary["quality"]["ended"] == 1.0
    assert summary["se"] > 0


def test_a_model_of_nan_is_refused_by_its_name(tiny_loaded, test_pairs):
    items = make_items(test_pairs, sampler_of(tiny_loaded), shared=True)
    with torch.no_grad():
        tiny_loaded.model.lm_head.weight[7] = math.nan
    with pytest.raises(InputError, match=r"model '.*' gives NaN .* 48 of 48 responses"):
        measure(tiny_loaded, test_pairs, items=items)


def test_a_tokenizer_without_a_pad_token_measures_as_one_with(tiny_loaded, test_pairs):
    bare = make_tokenizer(pad=None)
    assert bare.pad_token_id is None
    with_pad, without = (
        measure(model, test_pairs, noise_floor=False)
        for model in (tiny_loaded, dataclasses.replace(tiny_loaded, tokenizer=bare))
    )
    for one, other in zip(with_pad.entropies, without.entropies, strict=True):
        assert np.allclose(one, other, atol=1e-6)
    assert with_pad.summary["expectation"] == without.summary["expectation"]

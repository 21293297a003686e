"""Entropies taken while responses are sampled, against the plain scorer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isentropic.entropy.reference import token_entropy
from isentropic.entropy.scorer import EntropyScorer
from isentropic.measure.measurement import make_items, measure
from isentropic.measure.score import score_items
from isentropic.measure.watch import TOLERANCE, EntropyWatch, entropies_of
from isentropic.responses.response import Sampling
from isentropic.responses.sample import ResponseSampler
from tiny import make_model


def watched(model, tokenizer, prompts, *, shared=True, **sampling):
    """Items sampled under a watch, and the watch."""
    watch = EntropyWatch(model, EntropyScorer(), pad=0)
    sampler = ResponseSampler(model, tokenizer, Sampling(**sampling), watch=watch)
    return make_items(prompts, sampler, shared=shared), watch


def plain(model, items):
    return np.concatenate(score_items(model, EntropyScorer(), items, pad=0))


def known(watch, items):
    examples = [example for item in items for example in item.examples]
    return np.array([watch.known.get((x.prompt_ids, x.response_ids), np.nan) for x in examples])


def test_entropies_of_many_tokens_are_exact():
    logits = 3 * torch.randn(4, 100_000, generator=torch.Generator().manual_seed(0))
    logits[:, ::3] = -torch.inf
    torch.testing.assert_close(
        entropies_of(logits).double(), token_entropy(logits.double()), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("shared", [True, False])
def test_entropies_are_those_of_the_scorer(kind, shared, tiny_prompts, tiny_tokenizer):
    model = make_model(kind)
    items, watch = watched(model, tiny_tokenizer, tiny_prompts, shared=shared, num_responses=2)
    found = known(watch, items)
    there = ~np.isnan(found)  # twins that the end of a batch parts do not see each other
    assert watch.on and (there.mean() > 0.9 if shared else there.all())
    np.testing.assert_allclose(found[there], plain(model, items)[there], rtol=0, atol=TOLERANCE)
    unwatched = ResponseSampler(model, tiny_tokenizer, Sampling(num_responses=2))
    same = make_items(tiny_prompts, unwatched, shared=shared)
    assert [item.examples for item in items] == [item.examples for item in same]


def test_few_tokens_go_through_the_model_twice(tiny_model, tiny_tokenizer, tiny_prompts):
    model, counted = tiny_model(), []
    scorer = EntropyScorer(model)
    with model.model.register_forward_hook(lambda _m, _a, out: counted.append(out[0][..., 0].numel())):
        items, watch = watched(model, tiny_tokenizer, tiny_prompts)
        score_items(model, scorer, items, pad=0, known=watch.known)
        once = sum(counted)
        counted.clear()
        make_items(tiny_prompts, ResponseSampler(model, tiny_tokenizer, Sampling()), shared=True)
        score_items(model, scorer, items, pad=0)
    assert once < 0.8 * sum(counted)


def test_what_was_found_is_kept_with_the_responses(tiny_loaded, tiny_prompts, tmp_path, monkeypatch):
    monkeypatch.setenv("ISENTROPIC_CACHE", str(tmp_path))
    apart = measure(tiny_loaded, tiny_prompts)
    assert apart.summary["gap"] == measure(tiny_loaded, tiny_prompts, once=True).summary["gap"]
    monkeypatch.setenv("ISENTROPIC_CACHE", str(tmp_path / "other"))
    first, second = (measure(tiny_loaded, tiny_prompts, once=True) for _ in range(2))
    assert first.summary == second.summary != apart.summary
    assert first.summary["gap"] == pytest.approx(apart.summary["gap"], abs=1e-6)


def test_what_the_scorer_does_not_confirm_does_not_count(tiny_prompts, tiny_tokenizer):
    """Behind a window of 4 tokens the keys and values of the prompt are gone."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=4, initializer_range=0.5, eos_token_id=0,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    items, watch = watched(model, tiny_tokenizer, tiny_prompts)
    assert not watch.on and not watch.known

"""KL and perplexity against slow, direct computations with the model's own logits."""

from __future__ import annotations

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from tokenizers.processors import TemplateProcessing

from isentropic.errors import InputError
from isentropic.measure.cost import NeutralReference, neutral_examples, perplexity, ratio_with_interval
from isentropic.measure.measurement import measure
from isentropic.prompts.builtin import NEUTRAL_TEXTS
from isentropic.responses.response import Example, Sampling
from isentropic.responses.sample import ResponseSampler

TEXT = "She is a nurse. He is a pilot.\nThe judge put on her coat and left, naïvely. " * 20


@pytest.fixture(scope="module")
def examples(tiny_model, tiny_tokenizer) -> list[Example]:
    """Twelve neutral texts whose responses end at different lengths."""
    model = tiny_model()
    model.generation_config.eos_token_id = [0, *range(200, 230)]
    return neutral_examples(ResponseSampler(model, tiny_tokenizer, Sampling()), 320)[:12]


def moved(model, size: float = 0.02):
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return model


def slow_kl(base, other, examples) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the KL and number of tokens of each text, one by one and without padding."""
    totals, counts = [], []
    for example in examples:
        ids = torch.tensor([example.prompt_ids + example.response_ids])
        with torch.no_grad():
            p, q = (torch.log_softmax(m(ids).logits[0].double(), -1) for m in (base, other))
        places = range(len(example.prompt_ids) - 1, ids.shape[1] - 1)
        totals.append(sum(float((p[t].exp() * (p[t] - q[t])).sum()) for t in places))
        counts.append(len(places))
    return np.array(totals), np.array(counts)


# --- KL -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_kl_of_a_model_to_itself_is_zero(tiny_model, examples, kind):
    found = NeutralReference(tiny_model(kind), examples, pad=0).kl_to(tiny_model(kind))
    assert found["kl"] == pytest.approx(0, abs=1e-7) and found["n_texts"] == 12


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_kl_of_a_changed_model_is_the_slow_sum(tiny_model, examples, kind):
    assert len({len(example.response_ids) for example in examples}) > 2
    base, other = tiny_model(kind), moved(tiny_model(kind))
    found = NeutralReference(base, examples, pad=0).kl_to(other)
    totals, counts = slow_kl(base, other, examples)
    assert found["kl"] == pytest.approx(totals.sum() / counts.sum(), rel=1e-4) and found["kl"] > 1e-3
    low, high = found["kl_ci95"]
    assert low < found["kl"] < high


@pytest.mark.parametrize("wider", [0, 1])
def test_a_vocabulary_that_is_filled_up_is_compared_on_the_tokens_of_both(tiny_model, examples, wider):
    """Models of one tokenizer may have heads of different width, as Qwen2.5 of 0.5B and of 7B."""
    models = [tiny_model("qwen2"), moved(tiny_model("qwen2"))]
    totals, counts = slow_kl(*models, examples)
    models[wider].resize_token_embeddings(384, mean_resizing=False)
    found = NeutralReference(models[0], examples, pad=0).kl_to(models[1])
    assert found["kl"] == pytest.approx(totals.sum() / counts.sum(), rel=1e-4)


def test_the_reference_does_not_follow_the_model_and_leaves_it_alone(tiny_model, examples):
    model = tiny_model("gpt2").train()
    reference = NeutralReference(model, examples, pad=0)
    moved(model)
    assert reference.kl_to(model)["kl"] > 1e-3
    assert model.training and all(p.grad is None for p in model.parameters())


def test_pad_and_order_do_not_matter(tiny_model, examples):
    other = moved(tiny_model())
    first = NeutralReference(tiny_model(), examples, pad=0).kl_to(other)
    second = NeutralReference(tiny_model(), examples[::-1], pad=7).kl_to(other)
    assert first["kl"] == pytest.approx(second["kl"], rel=1e-5)


def test_interval_is_that_of_the_mean_when_texts_are_equally_long():
    totals, counts = np.array([0.1, 0.5, 0.2, 0.4]), np.full(4, 10)
    found = ratio_with_interval(totals, counts)
    per_token = totals / 10
    expected = stats.t.interval(0.95, 3, loc=per_token.mean(), scale=per_token.std(ddof=1) / 2)
    assert found["kl"] == pytest.approx(0.03) and found["kl_ci95"] == pytest.approx(expected)


def test_one_text_or_no_spread_has_no_interval():
    assert ratio_with_interval(np.array([0.3]), np.array([3])) == {
        "kl": pytest.approx(0.1),
        "kl_ci95": None,
    }
    assert ratio_with_interval(np.zeros(4), np.array([3, 4, 5, 6])) == {"kl": 0.0, "kl_ci95": None}


def test_interval_of_a_ratio_covers_the_truth():
    """Texts of unequal length whose KL a token depends on the length: the plain mean of ratios would be off."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        counts = rng.integers(2, 13, 60)
        totals = counts * (0.01 + 0.002 * counts) * rng.gamma(4, 0.25, 60)
        lengths = np.arange(2, 13)
        truth = (lengths * (0.01 + 0.002 * lengths)).sum() / lengths.sum()
        low, high = ratio_with_interval(totals, counts)["kl_ci95"]
        inside += low <= truth <= high
    assert 0.91 <= inside / 400 <= 0.98


def test_neutral_examples_are_own_responses_to_the_neutral_texts(tiny_loaded):
    sampler = ResponseSampler(tiny_loaded.model, tiny_loaded.tokenizer, Sampling(num_responses=2))
    made = neutral_examples(sampler, 320)
    assert [example.prompt.text for example in made] == list(NEUTRAL_TEXTS)
    assert all(example.source == example.prompt.group and example.sample == 0 for example in made)
    assert len(neutral_examples(sampler, 10**9)) == 8  # a huge vocabulary: few texts, but some


def test_tokens_of_no_probability_add_nothing_to_kl(tiny_model, examples):
    """Rows of the head at minus infinity, as for padding: 0 times infinity is 0 here."""

    def masked(model, rows):
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(model.lm_head.out_features))
        with torch.no_grad():
            model.lm_head.bias[rows] = -math.inf
        return model

    base, other = masked(tiny_model(), [300, 301]), masked(moved(tiny_model()), [300, 301])
    assert NeutralReference(base, examples, pad=0).kl_to(base)["kl"] == pytest.approx(0, abs=1e-7)
    found = NeutralReference(base, examples, pad=0).kl_to(other)
    assert 1e-3 < found["kl"] < math.inf and found["kl_ci95"][0] < found["kl"] < found["kl_ci95"][1]
    never = masked(tiny_model(), [300, 301, 5])  # it cannot say what the base may say
    assert NeutralReference(base, examples, pad=0).kl_to(never) == {
        "kl": math.inf,
        "kl_ci95": None,
        "n_texts": 12,
    }


# --- Perplexity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "width"), [(512, 256), (64, 64), (7, 7)])
def test_perplexity_is_the_plain_one_over_windows(tiny_loaded, tmp_path, window, width):
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    ids = tiny_loaded.tokenizer(TEXT).input_ids
    losses = []
    for start in range(0, len(ids), width):  # the model's context is 256
        chunk = ids[start : start + width]
        if len(chunk) > 1:
            with torch.no_grad():
                log_p = torch.log_softmax(tiny_loaded.model(torch.tensor([chunk])).logits[0].double(), -1)
            losses += [-float(log_p[t, chunk[t + 1]]) for t in range(len(chunk) - 1)]
    assert perplexity(tiny_loaded, str(file), window=window) == pytest.approx(
        math.exp(np.mean(losses)), rel=1e-4
    )


def test_perplexity_of_a_uniform_model_is_its_vocabulary(tiny_loaded, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    with torch.no_grad():
        tiny_loaded.model.lm_head.weight.zero_()
    tiny_loaded.model.train()
    assert perplexity(tiny_loaded, str(tmp_path / "text.txt")) == pytest.approx(320, rel=1e-5)
    assert tiny_loaded.model.training


@pytest.mark.parametrize("content", [b"", b"H", b"\xff\xfe\x00broken"])
def test_a_text_that_cannot_be_used_is_refused_in_one_line(tiny_loaded, tmp_path, content):
    (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(InputError) as caught:
        perplexity(tiny_loaded, str(tmp_path / "text.txt"))
    assert "text.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_text_file_is_refused(tiny_loaded, tmp_path):
    for name in ("none.txt", "."):
        with pytest.raises(InputError, match="cannot be read"):
            perplexity(tiny_loaded, str(tmp_path / name))


def test_each_window_begins_with_the_begin_token_where_the_tokenizer_puts_one(tiny_loaded, tmp_path):
    tokenizer = copy.deepcopy(tiny_loaded.tokenizer)
    begin = 3
    tokenizer.bos_token = tokenizer.convert_ids_to_tokens(begin)
    loaded = dataclasses.replace(tiny_loaded, tokenizer=tokenizer)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    plain = perplexity(loaded, str(tmp_path / "text.txt"), window=50)
    assert plain == perplexity(
        tiny_loaded, str(tmp_path / "text.txt"), window=50
    )  # it has one, and does not put it
    ids = tokenizer(TEXT).input_ids
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="B $A", special_tokens=[("B", begin)])
    losses = []
    for start in range(0, len(ids), 49):
        row = torch.tensor([[begin, *ids[start : start + 49]]])
        with torch.no_grad():
            log_p = torch.log_softmax(tiny_loaded.model(row).logits[0].double(), -1)
        losses += [-float(log_p[t, row[0, t + 1]]) for t in range(row.shape[1] - 1)]
    assert len(losses) == len(ids)
    found = perplexity(loaded, str(tmp_path / "text.txt"), window=50)
    assert found == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)


def test_a_perplexity_too_large_for_a_float_is_null_with_a_note(tiny_loaded, tiny_prompts, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    with torch.no_grad():
        tiny_loaded.model.lm_head.weight.mul_(1e5)
    assert perplexity(tiny_loaded, str(file)) == math.inf
    summary = measure(tiny_loaded, tiny_prompts.split("test"), text_file=str(file)).summary
    assert json.loads(json.dumps(summary, allow_nan=False))["quality"]["perplexity"] is None
    assert any("perplexity is infinite" in warning for warning in summary["warnings"])


def test_a_text_with_a_token_that_the_model_does_not_know_is_refused(tiny_loaded, tmp_path):
    from tiny import make_tokenizer

    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<new>"]})
    (tmp_path / "text.txt").write_text("He is <new> here.")
    with pytest.raises(InputError, match="holds the token '<new>' with id 320"):
        perplexity(dataclasses.replace(tiny_loaded, tokenizer=tokenizer), str(tmp_path / "text.txt"))

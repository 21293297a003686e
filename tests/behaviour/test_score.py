"""Log-likelihoods against plain transformers, by each form, and against published figures."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from isentropic.behaviour import SETS, Scores, log_likelihoods, read_sets, score_test_items, stereoset_scores
from isentropic.behaviour.score import split_tokens
from isentropic.behaviour.summary import figures
from isentropic.errors import InputError
from isentropic.models.load import load_model
from isentropic.prompts.rows import read_table
from oracles import log_likelihood

PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
TEXTS = ["He is a nurse.", "She told the clerk that he is late.", "A"]


@pytest.mark.parametrize("form", ["sum", "mean", "perplexity", "continuation"])
def test_each_form_is_that_of_plain_transformers(tiny_loaded, form):
    prompt = "The judge asked:" if form == "continuation" else ""
    texts = [f" {text}" for text in TEXTS] if prompt else TEXTS[: 2 if form == "perplexity" else 3]
    found, tokens = log_likelihoods(tiny_loaded, [(prompt, text) for text in texts], form)
    model, tokenizer = tiny_loaded.model, tiny_loaded.tokenizer
    for text, value, count in zip(texts, found, tokens, strict=True):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        if form == "continuation":
            before = tokenizer(prompt, add_special_tokens=False).input_ids
            whole = [0, *tokenizer(prompt + text, add_special_tokens=False).input_ids]
            expected = log_likelihood(model, whole, 1 + len(before))
            ids = whole[1 + len(before) :]
        elif form == "sum":
            expected = log_likelihood(model, [0, *ids], 1)
        else:  # the first token after the start token alone, the rest without it
            expected = log_likelihood(model, ids, 1)
            expected += log_likelihood(model, [0, ids[0]], 1) if form == "mean" else 0.0
        assert value == pytest.approx(expected, abs=1e-4)
        assert count == len(ids) - (form == "perplexity")


def test_the_perplexity_form_is_the_loss_of_transformers(tiny_loaded):
    found, tokens = log_likelihoods(tiny_loaded, [("", TEXTS[1])], "perplexity")
    ids = torch.tensor([tiny_loaded.tokenizer(TEXTS[1]).input_ids])
    with torch.no_grad():
        loss = tiny_loaded.model(input_ids=ids, labels=ids).loss
    assert -found[0] / tokens[0] == pytest.approx(float(loss), abs=1e-5)


def test_a_word_that_grows_over_the_boundary_is_scored_whole(tiny_loaded):
    """Whatever tokens the two share belong to the prompt, the others are scored: none is lost."""
    for prompt, text in (("The nur", "se"), ("He is a", " nurse"), ("", "He")):
        before, scored = split_tokens(tiny_loaded, prompt, text)
        assert tiny_loaded.tokenizer.decode([*before[1:], *scored]) == prompt + text and scored


def test_stereosets_score_is_a_mean_over_tokens(tiny_loaded, benchmarks):
    (one,) = read_sets(str(benchmarks), "stereoset")
    scores = score_test_items(tiny_loaded, one.benchmark, one.items)
    totals, tokens = log_likelihoods(tiny_loaded, [("", one.items[0].texts[1])], "mean")
    assert scores.values[0, 1] == pytest.approx(totals[0] / tokens[0], abs=1e-6)
    assert scores.tokens[0, 1] == tokens[0]


def test_texts_and_models_that_give_no_number(tiny_loaded):
    with pytest.raises(InputError, match="no token to score"):
        log_likelihoods(tiny_loaded, [("", "A")], "perplexity")
    with torch.no_grad():
        tiny_loaded.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(InputError, match="NaN or infinite log-likelihoods for 3 of 3"):
        log_likelihoods(tiny_loaded, [("", text) for text in TEXTS], "sum")


def test_published_predictions_give_the_published_scores_of_stereoset(public_sets):
    file = public_sets / "stereoset" / "predictions_gpt2.gender.json"
    scores = {row["id"]: row["score"] for row in json.loads(file.read_text())["intrasentence"]}
    tests = json.loads((public_sets / "stereoset" / "dev.gender.json").read_text())["data"]["intrasentence"]
    labels = ("anti-stereotype", "stereotype", "unrelated")
    values = [
        [scores[s["id"]] for label in labels for s in test["sentences"] if s["gold_label"] == label]
        for test in tests
    ]
    found = stereoset_scores(np.array(values), [test["target"] for test in tests])
    for name in ("ss", "lms", "icat"):
        assert found[name] == pytest.approx(PUBLISHED["stereoset"][name], abs=6e-4)
    # Over items it is another number, so the mean over terms is really what is taken.
    assert abs(found["ss_items"] - found["ss"]) > 0.05


# --- Published log-probabilities and figures of real models -------------------------------------------------
#
# ISENTROPIC_BENCHMARKS=DIR: `unstereoeval/` in it has USE-5.csv, USE-10.csv, USE-20.csv (data/datasets/raw of
# the authors' repository) and `results/` (of the same). No model is needed for the first test.
# ISENTROPIC_REFERENCE_MODELS=DIR: folders with the models, called gpt2, pythia-70m, opt-125m and so on.
#
#     ISENTROPIC_BENCHMARKS=... ISENTROPIC_REFERENCE_MODELS=... pytest -n 0 tests/behaviour/test_score.py -rs

UNSTEREO = {name: sets for name, sets in PUBLISHED["unstereoeval"].items() if name != "source"}
SETS_SCORED = list(UNSTEREO["pythia-70m"])


def unstereo_set(folder, name):
    pattern = SETS[name].files["sentences"]
    if not any(folder.glob(pattern)):
        pytest.skip(f"ISENTROPIC_BENCHMARKS has no {pattern}")
    return read_sets(str(folder), name)[0]


def reference_model(name):
    folder = Path(os.environ.get("ISENTROPIC_REFERENCE_MODELS", "none"), name)
    if not folder.is_dir():
        pytest.skip(f"ISENTROPIC_REFERENCE_MODELS names no folder that has a folder {name!r}")
    return load_model(str(folder))


@pytest.mark.parametrize("words", [5, 10, 20])
@pytest.mark.parametrize("model", UNSTEREO)
def test_published_log_probabilities_give_the_published_figures_of_unstereoeval(public_sets, model, words):
    """Our texts are those that its authors scored, one by one, and their scores give their share of neutral twins."""
    pattern = f"unstereoeval/results/{words}words/revised_templates__scores__*__{model}.csv"
    file = next(public_sets.glob(pattern), None)
    if file is None:
        pytest.skip(f"ISENTROPIC_BENCHMARKS has no {pattern}")
    one, published = unstereo_set(public_sets, f"use_{words}"), UNSTEREO[model][f"use_{words}"]
    rows = [row for row in read_table(file).rows if row["is_natural"] == "True"]
    assert [item.texts for item in one.items] == [(row["M_template"], row["F_template"]) for row in rows]
    values = np.array([[float(row["M_logprob"]), float(row["F_logprob"])] for row in rows])
    found = figures(model, one.benchmark, one.items, Scores(values, np.ones_like(values, dtype=int)))
    assert found["mean"]["value"] == pytest.approx(published["mean"], abs=1e-4)
    assert found["extra"]["neutral"] == pytest.approx(published["neutral"], abs=1e-4)
    np.testing.assert_allclose(values[0], published["first_item"], atol=1e-4)


@pytest.mark.parametrize("set_name", SETS_SCORED)
@pytest.mark.parametrize("model", UNSTEREO)
def test_our_log_probabilities_are_those_that_unstereoeval_published(public_sets, model, set_name):
    loaded = reference_model(model)
    one, published = unstereo_set(public_sets, set_name), UNSTEREO[model][set_name]
    scores = score_test_items(loaded, one.benchmark, one.items)
    found = figures(model, one.benchmark, one.items, scores)
    np.testing.assert_allclose(scores.values[0], published["first_item"], atol=2e-2)
    assert found["mean"]["value"] == pytest.approx(published["mean"], abs=2e-2)
    assert found["extra"]["neutral"] == pytest.approx(published["neutral"], abs=1.0)


def test_crows_pairs_of_gpt2_is_the_published_one(public_sets):
    """By its published form, the mean of log p per token, which only this test uses; the set takes the sum."""
    loaded = reference_model("gpt2")
    rows = read_table(public_sets / "crows_pairs" / "crows_pairs_anonymized.csv").rows
    texts = [("", row[side]) for row in rows for side in ("sent_more", "sent_less")]
    totals, tokens = log_likelihoods(loaded, texts, "perplexity")
    more, less = (totals / tokens).reshape(-1, 2).T
    for kind, percent in PUBLISHED["crows_pairs"]["gpt2"].items():
        chosen = [kind in ("all", row["bias_type"]) for row in rows]
        assert 100 * (more > less)[chosen].mean() == pytest.approx(percent, abs=0.06), kind

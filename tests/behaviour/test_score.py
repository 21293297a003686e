"""Log-likelihoods against plain transformers, by each form, and against published figures."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from isentropic.behaviour import PairedBehaviour, log_likelihoods, read_sets, score_items, stereoset_scores
from isentropic.behaviour.score import split_tokens
from isentropic.errors import InputError
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
    scores = score_items(tiny_loaded, one.benchmark, one.items)
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


# --- Opt-in: folders of models, by their names --------------------------------------------------------------


def reference_model(name):
    from isentropic.models.load import load_model

    folder = Path(os.environ.get("ISENTROPIC_REFERENCE_MODELS", "")) / name
    if not os.environ.get("ISENTROPIC_REFERENCE_MODELS") or not folder.is_dir():
        pytest.skip(f"ISENTROPIC_REFERENCE_MODELS names no folder with {name}")
    return load_model(str(folder))


def test_crows_pairs_of_gpt2_is_the_published_one(public_sets):
    from isentropic.prompts.rows import read_table

    loaded = reference_model("gpt2")
    rows = read_table(public_sets / "crows_pairs" / "crows_pairs_anonymized.csv").rows
    texts = [("", row[side]) for row in rows for side in ("sent_more", "sent_less")]
    totals, tokens = log_likelihoods(loaded, texts, "perplexity")
    more, less = (totals / tokens).reshape(-1, 2).T
    for kind, percent in PUBLISHED["crows_pairs"]["gpt2"].items():
        chosen = [kind in ("all", row["bias_type"]) for row in rows]
        assert 100 * (more > less)[chosen].mean() == pytest.approx(percent, abs=0.06), kind


@pytest.mark.parametrize("name", [name for name in PUBLISHED["unstereoeval"] if name != "source"])
def test_unstereoevals_published_log_probabilities(public_sets, name):
    loaded = reference_model(name)
    for set_name, published in PUBLISHED["unstereoeval"][name].items():
        if set_name.startswith("use") and not (public_sets / "unstereoeval").is_dir():
            continue
        tests = PairedBehaviour(read_sets(str(public_sets), set_name))
        tests.score(name, loaded)
        (found,) = tests.result()["sets"][0]["models"]
        if "first_item" in published:
            values = tests.scores[set_name][0].values[0]
            np.testing.assert_allclose(values, published["first_item"], atol=2e-2)
        if "mean" in published:
            assert found["mean"]["value"] == pytest.approx(published["mean"], abs=5e-3)
        if "neutral" in published:
            assert found["extra"]["neutral"] == pytest.approx(published["neutral"], abs=0.5)

"""The expectation gap against plain transformers, and what it says of twins and contexts."""

import json

import numpy as np
import pytest

from isentropic.entropy.scorer import EntropyScorer
from isentropic.errors import InputError
from isentropic.gap import Crossed, paired_gap
from isentropic.measure.expectation import (
    LogOdds,
    context_examples,
    expectation_change,
    expectation_row,
    expectation_rows,
    measure_expectation,
    pair_differences,
    start_token,
    twin_examples,
)
from isentropic.measure.measurement import make_items, measure
from isentropic.prompts.contexts import Context, builtin_contexts, read_contexts
from isentropic.responses.response import Sampling
from isentropic.responses.sample import ResponseSampler
from oracles import log_likelihood

GROUPS = ("male", "female")


def rows_of(loaded, items, groups=GROUPS):
    """The values of each form, and what the summary says of them."""
    found = measure_expectation(loaded, items, groups)
    return {name: form.values for name, form in found.items()}, expectation_rows(found, groups)


@pytest.fixture
def items(tiny_loaded, tiny_prompts):
    sampler = ResponseSampler(tiny_loaded.model, tiny_loaded.tokenizer, Sampling(max_new_tokens=3))
    return make_items(tiny_prompts.split("test"), sampler, shared=True)


def test_twins_are_scored_as_plain_transformers_scores_them(tiny_loaded, items):
    values, row = rows_of(tiny_loaded, items)
    tokenizer = tiny_loaded.tokenizer
    expected = []
    for item in items:
        ids = [[start_token(tokenizer), *tokenizer(prompt.text).input_ids] for prompt in item.prompts]
        first, second = (log_likelihood(tiny_loaded.model, x, 1) for x in ids)
        expected.append(second - first)
    np.testing.assert_allclose(values["twins"], expected, atol=2e-5)
    assert row["twins"]["gap"] == pytest.approx(np.mean(expected), abs=2e-5)
    assert row["twins"]["mean_abs"] == pytest.approx(np.mean(np.abs(expected)), abs=2e-5)
    assert row["twins"]["n"] == len(items)


def test_contexts_are_scored_as_plain_transformers_scores_them(tiny_loaded):
    contexts = builtin_contexts(GROUPS, "test")[:6]
    pairs = context_examples(contexts, GROUPS, tiny_loaded.tokenizer)
    found = pair_differences(
        tiny_loaded.model, EntropyScorer(quantity="surprisal"), pairs, pad=tiny_loaded.tokenizer.pad_token_id
    )
    for value, context in zip(found, contexts, strict=True):
        whole = [
            [
                start_token(tiny_loaded.tokenizer),
                *tiny_loaded.tokenizer(context.text + context.words[g]).input_ids,
            ]
            for g in GROUPS
        ]
        first, second = (log_likelihood(tiny_loaded.model, ids, 1) for ids in whole)
        assert value == pytest.approx(second - first, abs=2e-5)


def test_swapping_the_groups_turns_the_sign(tiny_loaded, items):
    there, _ = rows_of(tiny_loaded, items)
    back, _ = rows_of(tiny_loaded, items, GROUPS[::-1])
    np.testing.assert_allclose(there["twins"], -back["twins"], rtol=0, atol=2e-5)
    assert there["contexts"].mean() == pytest.approx(-back["contexts"].mean(), abs=1e-6)


def test_what_is_held_is_never_what_reports():
    held, reported = (builtin_contexts(GROUPS, split) for split in ("train", "test"))
    for found in (held, reported):
        assert len({(context.text, context.kind) for context in found}) == len(found)
    assert not {c.frame for c in held} & {c.frame for c in reported}
    assert not {c.filler for c in held} & {c.filler for c in reported}
    assert len({c.filler for c in held} | {c.filler for c in reported}) >= 60
    assert len({c.frame for c in held} | {c.frame for c in reported}) >= 10
    # Any first few are spread over frames and fillers.
    assert len({c.filler for c in held[:36]}) == 36
    assert len({c.frame for c in held[:14]}) == 14


def test_other_groups_have_no_builtin_contexts_but_their_twins(tiny_loaded, items):
    assert builtin_contexts(("young", "old"), "test") == []
    values, row = rows_of(tiny_loaded, items)
    assert row["contexts"] is not None and set(values) == {"twins", "contexts"}


def test_the_row_counts_clusters():
    values = np.repeat([0.1, -0.3, 0.4, 0.2], 5) + np.tile(np.linspace(-0.01, 0.01, 5), 4)
    alone, clustered = (
        expectation_row(values, None),
        expectation_row(values, np.repeat(list("abcd"), 5).tolist()),
    )
    width = [row["ci95"][1] - row["ci95"][0] for row in (alone, clustered)]
    assert width[1] > 2 * width[0]
    assert alone["prefers_second"] == 0.75
    assert expectation_row(values[:1], None)["ci95"] is None


def test_contexts_count_occupations_and_frames(tiny_loaded):
    contexts = builtin_contexts(GROUPS, "test")
    form = measure_expectation(tiny_loaded, [], GROUPS)["contexts"]
    assert form.clusters == [Crossed(context.filler, context.frame) for context in contexts]
    row = expectation_row(form.values, form.clusters)
    assert row["ci95"] == list(paired_gap(form.values, form.clusters).ci95)
    assert paired_gap(form.values, form.clusters).cluster_unit == "topic and filler"


def test_a_measurement_holds_it(tiny_loaded, tiny_prompts):
    found = measure(
        tiny_loaded, tiny_prompts.split("test"), sampling=Sampling(max_new_tokens=3), noise_floor=False
    )
    row = found.summary["expectation"]
    assert row["groups"] == ["male", "female"]
    assert set(row["twins"]) >= {"gap", "ci95", "mean_abs", "n"}
    assert set(row["contexts"]) >= {"gap", "ci95", "mean_abs", "n"}
    assert len(found.log_odds["twins"].values) == row["twins"]["n"]


def test_prompts_without_twins_have_contexts_alone(tiny_loaded, tiny_prompts):
    singles = twin_examples([], GROUPS, tiny_loaded.tokenizer)
    assert singles == []
    values, row = rows_of(tiny_loaded, [])
    assert row["twins"] is None and "twins" not in values


def test_words_that_begin_one_another_are_refused(tiny_loaded):
    context = Context("The nurse said", {"male": " he", "female": " he she"}, "f", "x")
    with pytest.raises(InputError, match="begins another"):
        context_examples([context], GROUPS, tiny_loaded.tokenizer)


@pytest.mark.parametrize("words", [(" she", " he", " he too"), (" he", " she", " he")])
def test_so_are_those_of_two_groups_among_three(tiny_loaded, words):
    groups = ("a", "b", "c")
    context = Context("The nurse said", dict(zip(groups, words, strict=True)), "f", "x")
    with pytest.raises(InputError, match="begins another"):
        context_examples([context], groups, tiny_loaded.tokenizer)


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"context": "half \\ud83d", "male": " he", "female": " she"}', '{"context": "The nurse said"}', '{"context": 3, "male": " he", "female": " she"}',
     '{"context": "The nurse", "male": "", "female": " she"}'],
)  # fmt: skip
def test_a_bad_line_of_a_contexts_file_is_named(tmp_path, line):
    file = tmp_path / "contexts.jsonl"
    file.write_text('{"context": "A", "male": " he", "female": " she"}\n' + line + "\n")
    with pytest.raises(InputError, match="line 2"):
        read_contexts(str(file), GROUPS)


def test_a_contexts_file_is_read_and_an_empty_or_missing_one_refused(tmp_path):
    file = tmp_path / "contexts.jsonl"
    file.write_text('{"context": "The nurse said", "male": " he", "female": " she"}\n\n')
    (context,) = read_contexts(str(file), GROUPS)
    assert (context.text, context.words["female"]) == ("The nurse said", " she")
    more = [
        {"context": "A", "male": " he", "female": " she", "frame": None, "filler": 2},
        {"context": "B", "male": " he", "female": " she", "frame": None},
    ]
    file.write_text("\n".join(map(json.dumps, more)), encoding="utf-8-sig")
    one, two = read_contexts(str(file), GROUPS)
    assert one.frame != two.frame and one.filler == "2" != two.filler
    file.write_text("\n")
    with pytest.raises(InputError, match="no line"):
        read_contexts(str(file), GROUPS)
    with pytest.raises(InputError, match="cannot be read"):
        read_contexts(str(tmp_path / "none.jsonl"), GROUPS)


def test_the_change_is_paired_and_takes_the_contexts_first():
    rng = np.random.default_rng(0)
    before = rng.normal(size=40)
    clusters = np.repeat(list("abcdefgh"), 5).tolist()
    first = {"twins": LogOdds(before, None), "contexts": LogOdds(before[::-1].copy(), clusters)}
    second = {name: LogOdds(form.values - 0.3, form.clusters) for name, form in first.items()}
    change = expectation_change(first, second)
    assert change["form"] == "contexts" and change["change"] == pytest.approx(-0.3)
    assert change["twins"]["abs_change"] == pytest.approx(np.abs(before - 0.3).mean() - np.abs(before).mean())
    assert expectation_change({"twins": first["twins"]}, second)["form"] == "twins"
    assert expectation_change({}, second) is None

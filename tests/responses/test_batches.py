"""Batches: positions by brute force, groups in balance, and a sampler that visits all and resumes the same."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from isentropic.entropy.scorer import EntropyScorer
from isentropic.errors import InputError
from isentropic.prompts.prompt_set import Prompt, PromptSet
from isentropic.responses.batches import (
    Item,
    StratifiedSampler,
    collate_examples,
    collate_items,
    pack,
    prompt_tuples,
    row_length,
)
from isentropic.responses.response import Example
from oracles import naive_entropies

MAN, WOMAN = Prompt("m", "male", "p"), Prompt("f", "female", "p")
END = 0
EXAMPLES = [
    Example(MAN, (5, 6, 7), (8, 9, 10, END), "male"),
    Example(WOMAN, (5, 6, 7, 11, 12), (8, 9, 10, END), "male"),  # the twin has two tokens more
    Example(MAN, (5, 6, 7), (END,), "female"),  # the end token alone
    Example(WOMAN, (5, 6, 7, 11, 12), (END,), "female"),
    Example(MAN, (5,), (20, 21), "male"),  # a prompt of one token
    Example(WOMAN, (5, END, 6), (END, END), "female"),  # end tokens everywhere
]


# --- Positions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [END, 1, 319])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_entropies_of_a_batch_are_those_of_each_example_alone(tiny_model, kind, pad):
    model = tiny_model(kind)
    with torch.no_grad():
        scored = EntropyScorer().score(model, **collate_examples(EXAMPLES, pad))
        for example, total, count in zip(EXAMPLES, *scored, strict=True):
            wanted = naive_entropies(model, example.prompt_ids, example.response_ids)
            assert count == len(example.response_ids)
            assert total.item() == pytest.approx(wanted.sum().item(), abs=1e-4)


def test_marked_positions_predict_the_response_token_by_token():
    batch = collate_examples(EXAMPLES, pad=END)
    for row, example in enumerate(EXAMPLES):
        marked = batch["predicts"][row].nonzero().flatten()
        assert tuple(batch["input_ids"][row, marked + 1].tolist()) == example.response_ids
        assert batch["attention_mask"][row, marked].all() and batch["attention_mask"][row, marked + 1].all()
        length = int(batch["attention_mask"][row].sum())
        assert length == len(example)
        assert tuple(batch["input_ids"][row, :length].tolist()) == example.prompt_ids + example.response_ids


def test_the_pad_token_does_not_matter_and_neither_does_the_order():
    first, second = collate_examples(EXAMPLES, pad=END), collate_examples(EXAMPLES, pad=17)
    assert torch.equal(first["predicts"], second["predicts"])
    assert torch.equal(first["attention_mask"], second["attention_mask"])
    backwards = collate_examples(EXAMPLES[::-1], pad=END)
    assert all(torch.equal(backwards[key].flip(0), first[key]) for key in first)


def test_a_micro_batch_keeps_its_items_beside_its_rows():
    items = [Item((MAN, WOMAN), EXAMPLES[:2], 0), Item((MAN, WOMAN), EXAMPLES[2:], 1)]
    batch = collate_items(items, pad=END)
    assert batch.pop("items") == items
    expected = collate_examples(EXAMPLES, pad=END)
    assert all(torch.equal(batch[key], expected[key]) for key in expected) and len(batch) == 3


# --- Packed rows ----------------------------------------------------------------------------------------------------

SIBLINGS = [EXAMPLES[i] for i in (0, 2, 0, 1, 3, 4, 5)]  # three, two, one and one response to a prompt


@pytest.mark.parametrize("longest, sizes", [(0, [1] * 7), (12, [2, 1, 2, 1, 1]), (512, [3, 2, 1, 1])])
def test_neighbours_with_one_prompt_share_a_row_up_to_its_longest(longest, sizes):
    rows = pack(SIBLINGS, longest)
    assert [len(row) for row in rows] == sizes
    assert [example for row in rows for example in row] == SIBLINGS
    batch = collate_examples(SIBLINGS, END, longest)
    assert batch["attention_mask"].sum(dim=1).tolist() == [row_length(row) for row in rows]
    assert all(row_length(row) <= longest for row in rows if len(row) > 1)


def test_a_packed_row_holds_each_response_behind_the_last_token_of_its_prompt():
    batch = collate_examples(SIBLINGS, END, longest=512)
    first = 0
    for row, examples in enumerate(pack(SIBLINGS, 512)):
        real = batch["attention_mask"][row].bool()
        shared = real & (batch["owners"][row] == -1)
        for number, example in enumerate(examples, start=first):
            mine = batch["owners"][row] == number
            whole = batch["input_ids"][row, shared].tolist() + batch["input_ids"][row, mine].tolist()
            assert tuple(whole) == example.prompt_ids + example.response_ids
            marked = (mine & batch["predicts"][row]).nonzero().flatten()
            assert tuple(batch["input_ids"][row, marked + 1].tolist()) == example.response_ids
        first += len(examples)
        assert not batch["predicts"][row, ~real].any()
    assert first == len(SIBLINGS) == int(batch["owners"].max()) + 1


def test_rows_of_one_response_are_the_same_packed_or_not():
    packed, alone = collate_examples(EXAMPLES, END, longest=512), collate_examples(EXAMPLES, END)
    assert packed.keys() == alone.keys() and all(torch.equal(packed[key], alone[key]) for key in alone)


# --- Tuples ---------------------------------------------------------------------------------------------------------


def unpaired(counts: dict[str, int]) -> PromptSet:
    prompts = tuple(Prompt(f"{g} {i}", g) for g, n in counts.items() for i in range(n))
    return PromptSet(prompts, tuple(counts), "unpaired")


def test_pairs_stay_together(tiny_prompts):
    assert prompt_tuples(tiny_prompts) == tiny_prompts.tuples()
    assert all(
        m.pair_id == f.pair_id and (m.group, f.group) == tiny_prompts.groups
        for m, f in prompt_tuples(tiny_prompts)
    )


@pytest.mark.parametrize(
    "counts", [{"male": 3, "female": 10}, {"a": 7, "b": 2, "c": 5}, {"male": 4, "female": 4}]
)
def test_unpaired_groups_are_balanced_by_drawing_the_smaller_ones_again(counts):
    prompts = unpaired(counts)
    tuples = prompt_tuples(prompts, seed=1)
    assert len(tuples) == max(counts.values())
    assert all(tuple(p.group for p in row) == prompts.groups for row in tuples)
    for column, (group, n) in enumerate(counts.items()):
        times = Counter(row[column] for row in tuples)
        assert set(times) == {p for p in prompts.prompts if p.group == group}
        assert max(times.values()) - min(times.values()) <= 1  # none is preferred
        assert len(times) == n
    assert tuples == prompt_tuples(prompts, seed=1) != prompt_tuples(prompts, seed=2)


def test_unmatched_parts_the_twins_but_keeps_every_prompt_once(tiny_prompts):
    tuples = prompt_tuples(tiny_prompts, matched=False)
    assert sorted(p.text for row in tuples for p in row) == sorted(p.text for p in tiny_prompts.prompts)
    assert all(tuple(p.group for p in row) == tiny_prompts.groups for row in tuples)
    assert sum(m.pair_id == f.pair_id for m, f in tuples) < len(tuples) / 4


def test_a_group_without_prompts_is_refused():
    prompts = dataclasses.replace(unpaired({"male": 3}), groups=("male", "female"))
    with pytest.raises(InputError, match="no prompt of group 'female'"):
        prompt_tuples(prompts)


# --- The sampler ----------------------------------------------------------------------------------------------------

TOPICS = ["a"] * 20 + ["b"] * 10 + ["c"] * 30 + [None] * 5


def test_every_pass_visits_every_item_once():
    order = list(StratifiedSampler(TOPICS, total=3 * 65, seed=4))
    for start in (0, 65, 130):
        assert sorted(order[start : start + 65]) == list(range(65))
    assert len({tuple(order[start : start + 65]) for start in (0, 65, 130)}) == 3


@pytest.mark.parametrize("total", [0, 1, 64, 65, 66, 200])
def test_the_length_is_the_number_given(total):
    sampler = StratifiedSampler(TOPICS, total=total, seed=0)
    assert len(sampler) == len(list(sampler)) == total
    assert {type(index) for index in sampler} <= {int}


def test_any_stretch_holds_the_topics_in_proportion():
    """Of n items of a topic among N, a stretch of a pass from its start is within 3 of its share. (A plain shuffle strays by more than 4.)"""
    labels = np.array([str(topic) for topic in TOPICS])
    for seed in range(20):
        one_pass = labels[list(StratifiedSampler(TOPICS, total=65, seed=seed))]
        for topic in set(labels):
            share = (labels == topic).mean()
            seen = np.cumsum(one_pass == topic)
            assert np.abs(seen - share * np.arange(1, 66)).max() < 3


def test_the_order_depends_on_the_seed_alone():
    first, again, other = (list(StratifiedSampler(TOPICS, total=200, seed=seed)) for seed in (3, 3, 4))
    assert first == again != other
    sampler = StratifiedSampler(TOPICS, total=200, seed=3)
    assert (
        list(sampler) == list(sampler) == first
    )  # a resumed run skips what it has seen and goes on the same
    assert list(StratifiedSampler(TOPICS, total=90, seed=3)) == first[:90]

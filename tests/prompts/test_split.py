"""Rows are cut into three splits that share nothing."""

import random
from typing import Any

import pytest

from isentropic.prompts.load import load_prompts
from tiny import Rows, pair_rows, single_rows, splits

# --- splitting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [pair_rows(100), single_rows(100)])
def test_splits_are_cut_in_the_given_shares(rows: Rows) -> None:
    prompts = load_prompts(rows)
    assert splits(prompts) == {"train": 120, "validation": 30, "test": 50}
    for name in splits(prompts):
        assert len(set(prompts.split(name).counts().values())) == 1
    assert splits(load_prompts(rows, split_fractions=(0.5, 0.25, 0.25))) == {
        "train": 100,
        "validation": 50,
        "test": 50,
    }


@pytest.mark.parametrize(
    "rows",
    [pair_rows(60), single_rows(60), [r | {"topic": str(i % 15)} for i, r in enumerate(pair_rows(60))]],
)
def test_the_split_does_not_depend_on_the_order_of_the_rows_but_on_the_seed(rows: Rows) -> None:
    shuffled = random.Random(7).sample(rows, len(rows))
    assert set(load_prompts(shuffled).prompts) == set(load_prompts(rows).prompts)
    assert set(load_prompts(rows, seed=1).prompts) != set(load_prompts(rows).prompts)


def test_pairs_are_never_parted() -> None:
    rows = [{"prompt": f"{g} {i}", "gender": g, "pair_id": i} for g in ("male", "female") for i in range(40)]
    for twins in load_prompts(rows).tuples():
        assert len({p.split for p in twins}) == 1


@pytest.mark.parametrize("make", [pair_rows, single_rows])
@pytest.mark.parametrize(("topics", "whole"), [(15, True), (11, False)])
def test_whole_topics_move_together_from_twelve_topics_on(make: Any, topics: int, whole: bool) -> None:
    rows = [row | {"topic": f"topic {i // 2 % topics}"} for i, row in enumerate(make(150))]
    prompts = load_prompts(rows)
    found = {(p.topic, p.split) for p in prompts.prompts}
    assert (len(found) == topics) is whole
    assert any("whole topics" in note for note in prompts.notes) is whole


def test_one_topic_that_holds_most_rows_does_not_become_the_test_set() -> None:
    rows = [row | {"topic": str(max(0, i - 80))} for i, row in enumerate(pair_rows(100))]
    assert splits(load_prompts(rows)) == {"train": 120, "validation": 30, "test": 50}


def test_marked_splits_stay_and_validation_is_cut_from_train_alone() -> None:
    rows = [r | {"split": "train" if i < 100 else "eval"} for i, r in enumerate(pair_rows(140))]
    prompts = load_prompts(rows)
    assert splits(prompts) == {"train": 160, "validation": 40, "test": 80}
    assert {p.row for p in prompts.split("test").prompts} == set(range(101, 141))


def test_all_marked_splits_are_left_alone() -> None:
    names = ["train", "dev", "heldout"]
    rows = [r | {"split": names[i % 3]} for i, r in enumerate(pair_rows(30))]
    assert splits(load_prompts(rows)) == {"train": 20, "validation": 20, "test": 20}


def test_a_test_file_alone_stays_a_test_set() -> None:
    assert splits(load_prompts(pair_rows(30, split="test"))) == {"train": 0, "validation": 0, "test": 60}


def test_a_pair_in_train_and_test_is_dropped_from_train() -> None:
    rows = pair_rows(30, split="train") + pair_rows(10, split="test") + pair_rows(2, split="test")
    prompts = load_prompts(rows)
    assert sum(splits(prompts).values()) == 60 and splits(prompts)["test"] == 20
    assert any(
        note.startswith("10 pairs of train that are also in test left out: rows 1,") for note in prompts.notes
    )
    assert any(
        note.startswith("2 pairs that are there twice left out: rows 41, 42") for note in prompts.notes
    )


def test_a_small_set_keeps_pairs_to_train_on() -> None:
    for n in range(3, 12):
        found = splits(load_prompts(pair_rows(n)))
        assert all(found.values()) and 3 * found["train"] >= 2 * n


def shared(n: int, **marks: list[str]) -> list[dict[str, str]]:
    """Pairs of which every two have the same male twin."""
    return [
        {
            "male": f"He has {i // 2} cats. He",
            "female": f"{'She' if i % 2 else 'Mary'} has {i // 2} cats. She",
        }
        | {name: values[i % len(values)] for name, values in marks.items()}
        for i in range(n)
    ]


@pytest.mark.parametrize("marks", [{}, {"topic": [f"t{i}" for i in range(15)]}])
def test_pairs_that_share_a_prompt_are_in_one_split(marks: dict) -> None:
    prompts = load_prompts(shared(80, **marks))
    texts = [{p.text for p in prompts.split(name).prompts} for name in ("train", "validation", "test")]
    assert all(texts) and not (texts[0] & texts[1] or texts[0] & texts[2] or texts[1] & texts[2])
    assert len(prompts) == 160


def test_a_pair_that_shares_a_prompt_with_a_held_out_pair_is_left_out() -> None:
    rows = shared(40, split=["train", "train", "train", "test", "validation"])
    prompts = load_prompts(rows)
    held_out = {p.text for p in prompts.split("validation", "test").prompts}
    assert held_out.isdisjoint(p.text for p in prompts.split("train").prompts)
    assert len(prompts.split("test").tuples()) == 8
    assert any(
        "pairs of train that share a prompt with test left out: rows" in note for note in prompts.notes
    )

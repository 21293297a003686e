"""The set of prompts: its order, its hash, its preview."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from isentropic.errors import InputError
from isentropic.prompts.builtin import builtin
from isentropic.prompts.load import load_prompts
from isentropic.prompts.preview import prompts_preview, write_prompts
from isentropic.prompts.prompt_set import Prompt, PromptSet
from tiny import pair_rows, single_rows

# --- the set --------------------------------------------------------------------------------------------------


def test_tuples_come_in_the_order_of_the_groups() -> None:
    prompts = [Prompt("She", "female", "1"), Prompt("He", "male", "1")]
    both = PromptSet(tuple(prompts), ("male", "female"), "two")
    assert both.tuples() == [(prompts[1], prompts[0])]
    assert not PromptSet(tuple(prompts[:1]), ("male", "female"), "one").paired
    assert not PromptSet((*prompts, prompts[0]), ("male", "female"), "three").paired
    with pytest.raises(InputError, match="not paired"):
        PromptSet(tuple(prompts[:1]), ("male", "female"), "one").tuples()


def test_the_hash_changes_with_the_content_and_not_with_the_place() -> None:
    rows = pair_rows()
    hashes = {
        load_prompts(rows).sha256,
        load_prompts(rows, seed=1).sha256,
        load_prompts(rows[:-1]).sha256,
        load_prompts([*rows[:-1], {"male": "He,", "female": "She,"}]).sha256,
        load_prompts(rows, groups=("female", "male")).sha256,
    }
    assert len(hashes) == 5
    assert load_prompts([{**row, "note": "unused"} for row in rows]).sha256 in hashes


def test_the_hash_of_prompts_without_fillers_is_that_of_before_there_were_any() -> None:
    twins = (Prompt("He", "male", "1", "t", "test", "c"), Prompt("She", "female", "1", "t", "test", "c"))
    rows = [["He", "male", "1", "t", "test", "c"], ["She", "female", "1", "t", "test", "c"]]
    canonical = json.dumps([["male", "female"], rows], separators=(",", ":"))
    plain = PromptSet(twins, ("male", "female"), "two")
    assert plain.sha256 == hashlib.sha256(canonical.encode()).hexdigest()
    filled = PromptSet(tuple(replace(p, filler="nurse") for p in twins), ("male", "female"), "two")
    assert filled.sha256 != plain.sha256


def test_fillers_are_read_as_topics_are(tmp_path: Path) -> None:
    rows = [{**row, "topic": f"t{i % 5}", "filler": i % 4} for i, row in enumerate(pair_rows())]
    prompts = load_prompts(rows)
    assert {p.filler for p in prompts.prompts} == {"0", "1", "2", "3"}
    again = load_prompts(write_prompts(prompts, tmp_path / "p.jsonl"))
    assert again.prompts == prompts.prompts and prompts_preview(again)["fillers"] == 4
    assert {p.filler for p in load_prompts(pair_rows()).prompts} == {None}


def test_ratio_line() -> None:
    assert load_prompts(pair_rows(30)).ratio_line() == "男女比例 / male:female = 30:30"
    assert builtin("age").ratio_line() == "young:middle-aged:old = 588:588:588"


@pytest.mark.parametrize("name", ["gender", "gender_neutral", "names", "pairs", "singles"])
def test_written_prompts_read_back_the_same(tmp_path: Path, name: str) -> None:
    prompts = {
        "gender": builtin(),
        "gender_neutral": builtin("gender_neutral"),
        "names": builtin("names", ["english", "arabic", "hispanic"]),
        "pairs": load_prompts(pair_rows()),
        "singles": load_prompts(single_rows()),
    }[name]
    groups = None if set(prompts.groups) == {"male", "female"} else prompts.groups
    again = load_prompts(write_prompts(prompts, tmp_path / "new" / "prompts.jsonl"), groups=groups)
    assert again.sha256 == prompts.sha256
    with pytest.raises(InputError, match="exists"):
        write_prompts(prompts, tmp_path / "new" / "prompts.jsonl")


def test_preview_is_plain_json_and_counts_everything() -> None:
    preview = prompts_preview(load_prompts(pair_rows()))
    assert json.loads(json.dumps(preview)) == preview
    assert sum(n for counts in preview["splits"].values() for n in counts.values()) == 40
    assert len(preview["examples"]) == 6


@pytest.mark.parametrize("paired", [True, False])
def test_a_part_of_a_sorted_file_is_drawn_from_all_of_it(paired: bool) -> None:
    rows = [dict(row, topic=f"t{n // 40}") for n, row in enumerate(pair_rows(200))]
    train = load_prompts(rows).split("train")
    if not paired:
        train = replace(train, prompts=tuple(replace(p, pair_id=None) for p in train.prompts))
    some, more = train.first(20), train.first(50)
    assert (some.counts(), more.per_group()) == ({"male": 20, "female": 20}, 50)
    assert len({p.topic for p in some.prompts}) == 5
    assert set(some.prompts) < set(more.prompts) and more.without(some).per_group() == 30
    assert train.first(train.per_group()) is train and train.first(None) is train


def test_the_first_of_a_built_in_set_are_its_first() -> None:
    test = builtin("gender").split("test")
    assert test.first(9).prompts == test.prompts[:18]

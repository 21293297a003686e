"""Stored responses give the same figures again; bad lines are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isentropic.errors import InputError
from isentropic.files import write_jsonl
from isentropic.measure.measurement import measure, response_rows
from isentropic.responses.sample import Sampling
from isentropic.responses.stored import stored_items
from tiny import unpaired

FIGURES = (
    "gap",
    "se",
    "ci95",
    "df",
    "n_pairs",
    "n_clusters",
    "cluster_unit",
    "H_male",
    "H_female",
    "verdict",
)


def refusal(call, *args) -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- Stored responses -----------------------------------------------------------------------------------------------


def stored(path: Path, loaded, prompts, **options) -> tuple[str, object]:
    found = measure(loaded, prompts, **options)
    write_jsonl(path / "responses.jsonl", response_rows(found, loaded.tokenizer, split="test"))
    return str(path / "responses.jsonl"), found


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("responses", ["shared", "own"])
@pytest.mark.parametrize("pairs", [True, False])
def test_stored_responses_give_the_same_figures(tmp_path, tiny_loaded, tiny_prompts, responses, k, pairs):
    prompts = tiny_prompts.split("test")
    prompts = prompts if pairs else unpaired(prompts)
    file, found = stored(
        tmp_path, tiny_loaded, prompts, responses=responses, sampling=Sampling(num_responses=k)
    )
    again, items = stored_items(file, tiny_loaded)
    assert again.prompts == prompts.prompts and again.groups == prompts.groups
    assert [item.examples for item in items] == [item.examples for item in found.items]
    summary = measure(tiny_loaded, again, items=items, responses=responses).summary
    for key in FIGURES:
        assert summary[key] == found.summary[key], key
    assert summary["cells"] == found.summary["cells"] and summary["own"] == found.summary["own"]


def test_every_figure_can_be_recomputed_from_the_rows(tmp_path, tiny_loaded, tiny_prompts):
    file, found = stored(tmp_path, tiny_loaded, tiny_prompts.split("test"))
    rows = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").strip().split("\n")]
    gaps = []
    for pair in dict.fromkeys(row["pair_id"] for row in rows):
        means = {
            g: sum(r["entropy"] for r in rows if (r["pair_id"], r["group"]) == (pair, g)) / 2
            for g in ("male", "female")
        }
        gaps.append(means["female"] - means["male"])
    assert found.summary["gap"] == pytest.approx(sum(gaps) / 12)
    assert {"pair_id", "group", "topic", "prompt", "response", "response_ids", "entropy"} <= set(rows[0])


def test_rows_of_text_alone_are_encoded(tmp_path, tiny_loaded):
    rows = [
        {"prompt": f"{who} is a {job}.", "response": f" {who} works.", "group": group}
        for job in ("nurse", "pilot")
        for who, group in (("He", "male"), ("She", "female"))
    ]
    write_jsonl(tmp_path / "r.jsonl", rows)
    prompts, items = stored_items(str(tmp_path / "r.jsonl"), tiny_loaded)
    assert not prompts.paired and prompts.counts() == {"male": 2, "female": 2}
    example = items[0].examples[0]
    assert tiny_loaded.tokenizer.decode(example.prompt_ids) == "He is a nurse."
    assert tiny_loaded.tokenizer.decode(example.response_ids) == " He works."
    assert example.source == "male"


def test_without_ids_the_text_is_encoded_anew(tmp_path, tiny_loaded, tiny_prompts):
    """The ids of another tokenizer are within the vocabulary and mean other text."""
    file, _ = stored(tmp_path, tiny_loaded, tiny_prompts.split("test"))
    rows = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    strange = [{**row, "response": " He works.", "prompt_ids": [5], "response_ids": [6]} for row in rows]
    write_jsonl(tmp_path / "other.jsonl", strange)
    _, items = stored_items(str(tmp_path / "other.jsonl"), tiny_loaded, use_ids=False)
    examples = [example for item in items for example in item.examples]
    assert {tiny_loaded.tokenizer.decode(example.response_ids) for example in examples} == {" He works."}
    assert all(tiny_loaded.tokenizer.decode(e.prompt_ids) == e.prompt.text for e in examples)


def test_a_pair_without_its_twin_makes_all_of_it_unpaired(tmp_path, tiny_loaded, tiny_prompts):
    file, _ = stored(tmp_path, tiny_loaded, tiny_prompts.split("test"))
    lines = Path(file).read_text(encoding="utf-8").strip().split("\n")
    kept = [
        line for line in lines if not (json.loads(line)["pair_id"] == "works-miner" and '"female"' in line)
    ]
    assert len(kept) < len(lines)
    Path(file).write_text("\n".join(kept[:-1]), encoding="utf-8")
    _, items = stored_items(file, tiny_loaded)
    assert all(len(item.prompts) == 1 for item in items) and [item.index for item in items] == list(
        range(len(items))
    )
    assert all(e.source == e.prompt.group for item in items for e in item.examples)


GOOD = '{"prompt": "He is", "group": "male", "response": " tall"}\n{"prompt": "She is", "group": "female", "response": " tall"}\n'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 3 cannot be used"),
        ("null", "line 3 cannot be used"),
        ("[1, 2]", "line 3 cannot be used"),
        ('{"group": "male", "response": "x"}', "line 3 cannot be used (KeyError: 'prompt')"),
        ('{"prompt": "He", "response": "x"}', "line 3 cannot be used (KeyError: 'group')"),
        ('{"prompt": "He", "group": "male"}', "line 3 cannot be used (KeyError: 'response')"),
        ('{"prompt": 7, "prompt_ids": [5], "group": "male", "response": "x"}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": null, "response": "x"}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": ["male"], "response": "x"}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response": null}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response_ids": ["x"]}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response_ids": 7}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response_ids": [5.7]}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response_ids": "57"}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response": "x", "sample": "first"}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response": "x", "pair_id": ["p"]}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response": ""}', "line 3 has an empty"),
        ('{"prompt": "", "group": "male", "response": "x"}', "line 3 has an empty"),
        ('{"prompt": "He", "group": "male", "response_ids": []}', "line 3 has an empty"),
        ('{"prompt": "He", "group": "male", "response_ids": [5, 320]}', "line 3 has token id 320"),
        ('{"prompt": "He", "group": "male", "response_ids": [-1]}', "line 3 has token id -1"),
        (
            '{"prompt": "He", "prompt_ids": [999], "group": "male", "response_ids": [1]}',
            "line 3 has token id 999",
        ),
        (
            json.dumps({"prompt": "He", "group": "male", "response_ids": [5] * 300}),
            "the model's context is 256",
        ),
        ('{"prompt": "H\udce9", "group": "male", "response": "x"}', "UTF-8"),
    ],
)
def test_a_bad_line_is_named_in_one_line(tmp_path, tiny_loaded, line, words):
    file = tmp_path / "r.jsonl"
    file.write_text(GOOD, encoding="utf-8")
    stored_items(str(file), tiny_loaded)
    file.write_text(GOOD + line + "\n", encoding="utf-8", errors="surrogateescape")
    assert words in refusal(stored_items, str(file), tiny_loaded)


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "is empty"), ("\n\n", "is empty"), (GOOD.splitlines()[0], "one group only, 'male'")],
)
def test_a_file_without_two_groups_is_refused(tmp_path, tiny_loaded, content, words):
    (tmp_path / "r.jsonl").write_text(content)
    assert words in refusal(stored_items, str(tmp_path / "r.jsonl"), tiny_loaded)


def test_a_missing_file_is_refused(tmp_path, tiny_loaded):
    assert "does not exist" in refusal(stored_items, str(tmp_path / "none.jsonl"), tiny_loaded)
    assert "does not exist" in refusal(stored_items, str(tmp_path), tiny_loaded)

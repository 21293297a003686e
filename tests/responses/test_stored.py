"""Stored responses give the same figures again; bad lines are named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from isentropic.errors import InputError
from isentropic.files import write_jsonl
from isentropic.measure.measurement import measure, response_rows
from isentropic.responses.response import Sampling
from isentropic.responses.stored import stored_chat, stored_items
from tiny import lines_file, make_tokenizer, unpaired

FIGURES = "gap se ci95 df n_pairs n_clusters cluster_unit H_male H_female verdict".split()


def refusal(call, *args) -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def read(file) -> list[dict]:
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


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
    crossed = tuple(dataclasses.replace(p, filler=p.pair_id.rsplit("-", 1)[1]) for p in prompts.prompts)
    prompts = dataclasses.replace(prompts, prompts=crossed)
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
    assert summary["cluster_unit"] == ("topic and filler" if pairs else "prompt")
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


def another_tokenizer(loaded):
    """The same model with a tokenizer that cuts text into other tokens, and its end token elsewhere."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        ["words of another text, quite another one"],
        trainers.BpeTrainer(
            vocab_size=280,
            special_tokens=["<unk>", "<stop>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<stop>", pad_token="<stop>")
    return dataclasses.replace(loaded, tokenizer=tokenizer, name="another")


def test_text_with_half_a_character_is_counted(tmp_path, tiny_loaded, tiny_prompts):
    """A response cut inside a character: its ids are those of the model, its text alone is not."""
    file, _ = stored(tmp_path, tiny_loaded, tiny_prompts.split("test"))
    kept = read(file)
    for row in kept:
        row["response"] = row["response"].replace("\ufffd", "?")
    kept[0]["response"] += "\ufffd"
    kept[1]["response"] = "\ufffd" + kept[1]["response"]
    for row in kept:
        del row["response_ids"]
    write_jsonl(tmp_path / "text.jsonl", kept)
    notes = stored_items(str(tmp_path / "text.jsonl"), tiny_loaded)[0].notes
    assert [note for note in notes if note.startswith(f"2 of {len(kept)} responses are text with U+FFFD")]
    assert not [note for note in stored_items(file, tiny_loaded)[0].notes if "U+FFFD" in note]


def test_for_a_model_of_another_tokenizer_the_text_is_encoded(tmp_path, tiny_loaded, tiny_prompts):
    file, _ = stored(tmp_path, tiny_loaded, tiny_prompts.split("test"))
    ended = [
        {**row, "response_ids": [*row["response_ids"], 0], "response": row["response"] + "<end>"}
        if row["source"] == "male"
        else row
        for row in read(file)
    ]
    write_jsonl(Path(file), ended)
    _, found = stored_items(file, tiny_loaded)
    other = another_tokenizer(tiny_loaded)
    _, items = stored_items(file, other, writer=tiny_loaded)
    old, new = ([e for item in made for e in item.examples] for made in (found, items))
    ends = 0
    for before, after in zip(old, new, strict=True):
        text = tiny_loaded.tokenizer.decode(before.response_ids, skip_special_tokens=True)
        assert other.tokenizer.decode(after.prompt_ids) == before.prompt.text
        assert other.tokenizer.decode(after.response_ids, skip_special_tokens=True) == text
        assert (before.response_ids[-1] == 0) == (after.response_ids[-1] == 1)
        ends += after.response_ids[-1] == 1
    assert 0 < ends < len(new)


def test_ids_of_another_tokenizer_are_refused(tmp_path, tiny_loaded, tiny_prompts):
    file, _ = stored(tmp_path, another_tokenizer(tiny_loaded), tiny_prompts.split("test"))
    assert "to another tokenizer" in refusal(stored_items, file, tiny_loaded)
    rows = read(file)
    write_jsonl(Path(file), [{**row, "response": None} for row in rows])  # the prompt's ids tell as well
    assert "prompt_ids that say" in refusal(stored_items, file, tiny_loaded)
    write_jsonl(Path(file), [{**row, "prompt_ids": None, "response_ids": None} for row in rows])
    stored_items(file, tiny_loaded)


def test_text_is_encoded_together_with_its_prompt(tmp_path, tiny_loaded, tiny_prompts):
    """A tokenizer may join the end of a prompt and the beginning of a response: that is said."""
    file, found = stored(tmp_path, tiny_loaded, tiny_prompts.split("test"))
    rows = [{**row, "prompt_ids": None, "response_ids": None} for row in read(file)]
    for row in rows:
        row["prompt"], row["response"] = row["prompt"] + " put", " on his coat."
    write_jsonl(Path(file), rows)
    prompts, items = stored_items(file, tiny_loaded)
    encode = tiny_loaded.tokenizer
    for example in (e for item in items for e in item.examples):
        whole = tuple(encode(example.prompt.text + " on his coat.").input_ids)
        assert example.prompt_ids + example.response_ids == whole
    assert not prompts.notes
    for row in rows:
        row["prompt"], row["response"] = row["prompt"][:-1], "t on"  # "pu" and "t": the tokenizer has "put"
    write_jsonl(Path(file), rows)
    prompts, _ = stored_items(file, tiny_loaded)
    assert f"{len(rows)} of {len(rows)} responses are encoded apart" in prompts.notes[0]


# --- Chat -----------------------------------------------------------------------------------------------------------


def test_stored_text_of_a_chat_goes_through_the_template(tmp_path, tiny_loaded, tiny_prompts):
    loaded = dataclasses.replace(tiny_loaded, tokenizer=make_tokenizer(chat=True))
    sampling = Sampling(chat=True, system="Brief.")
    file, found = stored(tmp_path, loaded, tiny_prompts.split("test"), sampling=sampling)
    assert stored_chat(file, loaded) and stored_chat(file, loaded, True)
    assert "prompt_ids are those of a chat" in refusal(stored_chat, file, loaded, False)
    rows = read(file)
    write_jsonl(Path(file), [{**row, "prompt_ids": None, "response_ids": None} for row in rows])
    assert not stored_chat(file, loaded) and stored_chat(file, loaded, True)  # its prompts break off
    _, items = stored_items(file, loaded, sampling)
    want = [e.prompt_ids for item in found.items for e in item.examples]
    assert [e.prompt_ids for item in items for e in item.examples] == want
    _, items = stored_items(file, loaded, Sampling())
    assert [e.prompt_ids for item in items for e in item.examples] != want
    assert "no chat template" in refusal(stored_items, file, tiny_loaded, sampling)


def test_another_tokenizer_gets_the_chat_of_the_file_or_is_refused(tmp_path, tiny_loaded, tiny_prompts):
    loaded = dataclasses.replace(tiny_loaded, tokenizer=make_tokenizer(chat=True))
    brief = Sampling(chat=True, system="Brief.")
    file, _ = stored(tmp_path, loaded, tiny_prompts.split("test"), sampling=brief)
    other = another_tokenizer(tiny_loaded)
    with pytest.raises(InputError, match="no chat template"):
        stored_items(file, other, brief, writer=loaded)
    other.tokenizer.chat_template = loaded.tokenizer.chat_template
    _, items = stored_items(file, other, brief, writer=loaded)
    assert other.tokenizer.decode(items[0].examples[0].prompt_ids).startswith("[system] Brief.")
    for settings in (Sampling(), Sampling(chat=True)):  # not how the responses came about
        with pytest.raises(InputError, match="line 1 has prompt_ids that are not those of its prompt"):
            stored_items(file, other, settings, writer=loaded)


def test_the_command_line_says_how_stored_prompts_were_taken(
    tmp_path, tiny_folder, tiny_loaded, tiny_prompts
):
    from isentropic.cli import main

    folder = shutil.copytree(tiny_folder, tmp_path / "chat-model")
    make_tokenizer(chat=True).save_pretrained(folder)
    loaded = dataclasses.replace(tiny_loaded, tokenizer=make_tokenizer(chat=True))
    file, found = stored(tmp_path, loaded, tiny_prompts.split("test"), sampling=Sampling(chat=True))
    rows = read(file)
    text = str(tmp_path / "text.jsonl")
    write_jsonl(Path(text), [{**row, "prompt_ids": None, "response_ids": None} for row in rows])
    gaps = {}
    for name, flags in ((file, []), (file, ["--chat"]), (text, ["--chat"]), (text, [])):
        words = ["measure", str(folder), "--responses_in", name, "--bf16", "off", "--no-noise_floor", *flags]
        assert main([*words, "--json", str(tmp_path / "out.json")]) == 0
        summary = json.loads((tmp_path / "out.json").read_text())
        gaps[name, bool(flags)] = summary["settings"]["chat"], summary["gap"]
    assert gaps[file, False] == gaps[file, True] == (True, pytest.approx(found.summary["gap"], abs=1e-5))
    chat, gap = gaps[text, False]
    assert not chat and abs(gap - found.summary["gap"]) > 1e-3
    assert gaps[text, True][0]
    assert main(["measure", str(folder), "--responses_in", file, "--no-chat"]) == 2


# --- Pairs ----------------------------------------------------------------------------------------------------------


def test_a_pair_without_its_twin_is_left_out_and_counted(tmp_path, tiny_loaded, tiny_prompts):
    file, _ = stored(tmp_path, tiny_loaded, tiny_prompts.split("test"))
    rows = read(file)
    write_jsonl(
        Path(file), [row for row in rows if (row["pair_id"], row["group"]) != ("works-miner", "female")]
    )
    prompts, items = stored_items(file, tiny_loaded)
    assert prompts.paired and len(items) == 11
    assert prompts.notes[0].startswith("1 pair_ids without")
    # One row of another pair is gone: its twin's row on the same response has no counterpart.
    write_jsonl(Path(file), rows[:-1])
    prompts, items = stored_items(file, tiny_loaded)
    assert len(items) == 12 and len(items[-1].examples) == 2
    assert prompts.notes == ("1 responses on which not every twin of their pair is scored left out",)


def test_responses_of_one_number_are_matched_in_their_order(tmp_path, tiny_loaded):
    """A file without numbers: what only one twin is scored on has no counterpart."""
    rows = [
        {"group": group, "prompt": f"{word} is a baker {pair}.", "pair_id": pair, "source": "male",
         "response": f" came {k}."}
        for pair in "ab"
        for group, word, count in (("male", "He", 3), ("female", "She", 1 + (pair == "b")))
        for k in range(count)
    ]  # fmt: skip
    prompts, items = stored_items(str(lines_file(tmp_path / "rows.jsonl", rows)), tiny_loaded)
    assert [len(item.examples) for item in items] == [2, 4]
    for item in items:
        male, female = (
            [e.response_ids for e in item.examples if e.prompt.group == g] for g in prompts.groups
        )
        assert male == female
    assert prompts.notes == ("3 responses on which not every twin of their pair is scored left out",)


def test_pairs_of_which_none_is_whole_are_single_prompts_and_that_is_said(
    tmp_path, tiny_loaded, tiny_prompts
):
    file, _ = stored(tmp_path, tiny_loaded, tiny_prompts.split("test"))
    rows = [{**row, "pair_id": f"{row['pair_id']}-{row['group']}"} for row in read(file)]
    write_jsonl(Path(file), rows)
    prompts, items = stored_items(file, tiny_loaded)
    assert not prompts.paired and all(len(item.prompts) == 1 for item in items)
    assert all(e.source == e.prompt.group for item in items for e in item.examples)
    assert "no pair_id has one prompt of each group" in prompts.notes[0]
    assert "24 responses of other prompts left out" in prompts.notes[1]


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
        ('{"prompt": "He", "group": "male", "response": "x", "sample": Infinity}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response": "x", "sample": 1.5}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response": "x", "sample": "1"}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response": "x", "sample": true}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response": "x", "sample": -1}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": true, "response": "x"}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response_ids": [true]}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response_ids": {"5": 7}}', "line 3 cannot be used"),
        ('{"prompt": "He", "group": "male", "response_ids": [%s]}' % ("9" * 30), "line 3 has token id 999"),
        ('{"prompt": "He", "group": "male", "response_ids": [%s]}' % ("9" * 5000), "line 3 cannot be used"),
        (
            '{"prompt": "\\ud83d", "group": "male", "response_ids": [5]}',
            "line 3 cannot be used (UnicodeEncodeError",
        ),
        (
            '{"prompt": "He", "group": "male", "response": "\\udc00"}',
            "line 3 cannot be used (UnicodeEncodeError",
        ),
        (
            '{"prompt": "He", "group": "male", "response": "x", "topic": "\\ud83d"}',
            "line 3 cannot be used (Unicode",
        ),
        ('{"a":' * 100_000, "line 3 cannot be used (ValueError: it is nested"),
        (
            '{"prompt": "He", "group": "male", "response": "x", "source": "wikipedia"}',
            "line 3 has the source 'wikipedia'",
        ),
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

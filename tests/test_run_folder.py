"""The run folder: never overwritten in silence; stored responses give the same figures again; bad lines are named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from isentropic.errors import InputError
from isentropic.files import write_json, write_jsonl
from isentropic.measure.score import measure, response_rows
from isentropic.prompts.prompt_set import PromptSet
from isentropic.responses.sample import Sampling
from isentropic.responses.stored import stored_items
from isentropic.run_folder import check_folder, check_same_run, last_checkpoint, limited, prepare_folder
from isentropic.settings import TrainSettings

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


# --- Making the folder ----------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder as an earlier run left it."""
    folder = tmp_path / "runs" / "earlier"
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {"model_sha256": "a" * 64, "data_sha256": "b" * 64})
    return folder


def settings(folder: Path, **given) -> TrainSettings:
    return TrainSettings(output_dir=str(folder.parent), run_name=folder.name, **given)


def test_a_new_folder_is_made(tmp_path):
    folder = tmp_path / "deep" / "runs" / "new"
    check_folder(folder, settings(folder))
    prepare_folder(folder, settings(folder), 1000)
    assert folder.is_dir() and not list(folder.iterdir())


def test_a_folder_that_exists_is_refused_and_kept(run):
    for folder in (run, run / "config.json"):
        message = refusal(check_folder, folder, settings(folder))
        assert "exists" in message and "--resume" in message and "--overwrite" in message
    assert (run / "config.json").is_file()


def test_overwrite_deletes_a_run_folder_and_nothing_else(run, tmp_path):
    check_folder(run, settings(run, overwrite=True))
    prepare_folder(run, settings(run, overwrite=True), 1000)
    assert run.is_dir() and not list(run.iterdir())
    photos = tmp_path / "runs" / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_bytes(b"cat")
    assert "no run folder" in refusal(prepare_folder, photos, settings(photos, overwrite=True), 1000)
    assert (photos / "cat.jpg").read_bytes() == b"cat"


def test_resume_needs_an_unfinished_run(run, tmp_path):
    check_folder(run, settings(run, resume=True))
    write_json(run / "result.json", {"stopped": "interrupted"})
    check_folder(run, settings(run, resume=True))
    write_json(run / "result.json", {"stopped": "target"})
    assert "is finished (target)" in refusal(check_folder, run, settings(run, resume=True))
    assert "does not exist" in refusal(check_folder, tmp_path / "none", settings(run, resume=True))
    (run / "config.json").unlink()
    assert "nothing to resume" in refusal(check_folder, run, settings(run, resume=True))


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff"])
def test_damaged_files_of_a_run_are_named(run, tiny_loaded, tiny_prompts, content):
    (run / "result.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert "result.json" in refusal(check_folder, run, settings(run, resume=True))
    (run / "config.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert "config.json" in refusal(check_same_run, run, tiny_prompts, tiny_loaded)


def test_a_run_goes_on_with_its_model_and_its_prompts(run, tiny_loaded, tiny_prompts):
    own = {"model_sha256": tiny_loaded.sha256, "data_sha256": tiny_prompts.sha256}
    write_json(run / "config.json", own)
    check_same_run(run, tiny_prompts, tiny_loaded)
    write_json(run / "config.json", own | {"model_sha256": "c" * 64})
    assert "another model" in refusal(check_same_run, run, tiny_prompts, tiny_loaded)
    write_json(run / "config.json", own | {"data_sha256": "c" * 64})
    assert "other prompts" in refusal(check_same_run, run, tiny_prompts, tiny_loaded)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file" / "run", tmp_path / "file" / "deep" / "run"):
        assert "cannot be made" in refusal(prepare_folder, folder, settings(folder), 1000)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_disk_without_room_is_refused_before_anything_is_deleted(run):
    assert "make room" in refusal(prepare_folder, run, settings(run, overwrite=True), 10**15)
    assert (run / "config.json").is_file()


def test_the_last_checkpoint_is_the_highest_step_that_is_whole(run):
    assert last_checkpoint(run) is None
    for step in (5, 10, 100, 25):
        (run / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
        if step != 100:
            write_json(run / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json", {})
    assert last_checkpoint(run).endswith("checkpoint-25")


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"gap": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_jsonl(tmp_path / "x.jsonl", [{"gap": float("inf")}])
    write_json(tmp_path / "x.json", {"zh": "偏见 💥"})
    assert "偏见 💥" in (tmp_path / "x.json").read_text(encoding="utf-8")


def test_limited_takes_whole_pairs_or_prompts_of_each_group(tiny_prompts):
    assert limited(tiny_prompts, None) is tiny_prompts
    assert limited(tiny_prompts, 5).tuples() == tiny_prompts.tuples()[:5]
    assert limited(tiny_prompts, 1000) == tiny_prompts
    assert limited(unpaired(tiny_prompts), 5).counts() == {"male": 5, "female": 5}


# --- Stored responses -----------------------------------------------------------------------------------------------


def unpaired(prompts: PromptSet) -> PromptSet:
    rows = tuple(dataclasses.replace(p, pair_id=None, topic=None, cell=None) for p in prompts.prompts)
    return dataclasses.replace(prompts, prompts=rows)


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

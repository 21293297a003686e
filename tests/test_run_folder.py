"""The run folder: never overwritten in silence; stored responses give the same figures again; bad lines are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from isentropic.errors import InputError
from isentropic.files import write_json, write_jsonl
from isentropic.run_folder import check_folder, check_same_run, last_checkpoint, limited, prepare_folder
from isentropic.settings import TrainSettings
from tiny import unpaired


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

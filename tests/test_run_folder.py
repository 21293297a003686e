"""The run folder: made in one move, locked, resumed with its own settings, never overwritten without being told to."""

from __future__ import annotations

import multiprocessing
import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest

from isentropic.errors import InputError
from isentropic.files import load_object, write_json
from isentropic.run_folder import (
    check_folder,
    check_same_run,
    clean,
    is_finished,
    locked,
    new_folder,
    note_resume,
    read_metrics,
    remove_left_behind,
    without_trace,
)
from isentropic.settings import TrainSettings

OURS = {"schema": "isentropic.config/1", "model_sha256": "a" * 64, "data_sha256": "b" * 64}


def refusal(call, *args, **options) -> str:
    with pytest.raises(InputError) as caught, ExitStack() as stack:
        made = call(*args, **options)
        if hasattr(made, "__enter__"):
            stack.enter_context(made)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def earlier(tmp_path) -> Path:
    """A run folder as an earlier run left it."""
    folder = tmp_path / "runs" / "earlier"
    folder.mkdir(parents=True)
    write_json(folder / "config.json", OURS)
    return folder


def settings(folder: Path, **given) -> TrainSettings:
    return TrainSettings(output_dir=str(folder.parent), run_name=folder.name, **given)


# --- Making the folder ----------------------------------------------------------------------------------------------


def test_a_new_folder_begins_with_its_config_and_its_lock(tmp_path):
    folder = tmp_path / "deep" / "runs" / "new"
    check_folder(folder, settings(folder))
    with new_folder(folder, OURS, 1000):
        assert load_object(folder / "config.json") == OURS
        assert "in use by another process" in refusal(locked, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["new"]


def test_a_folder_that_exists_is_refused_and_kept(earlier):
    message = refusal(check_folder, earlier, settings(earlier))
    assert "exists" in message and "--resume" in message and "--overwrite" in message
    assert "not a run folder" in refusal(check_folder, earlier / "config.json", settings(earlier))
    assert load_object(earlier / "config.json") == OURS


@pytest.mark.parametrize("inside", ["", "checkpoints/checkpoint-3"])
def test_a_folder_without_a_file_is_no_dead_end(tmp_path, inside):
    """As a run left it that was killed while it made its folder."""
    folder = tmp_path / "run"
    (folder / inside).mkdir(parents=True)
    assert "nothing to resume" in refusal(check_folder, folder, settings(folder, resume=True))
    for given in (settings(folder), settings(folder, overwrite=True)):
        check_folder(folder, given)
    with new_folder(folder, OURS, 1000):
        assert sorted(path.name for path in folder.iterdir()) == [".lock", "config.json"]


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"schema": "another/1"}', None])
def test_a_folder_that_is_not_ours_is_never_deleted_or_resumed(tmp_path, broken):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    if broken is not None:
        (folder / "config.json").write_text(broken)
    for flags in ({}, {"overwrite": True}):
        assert "not a run folder" in refusal(check_folder, folder, settings(folder, **flags))
    if broken != '{"schema": "another/1"}':
        assert refusal(check_folder, folder, settings(folder, resume=True))
    assert (folder / "cat.jpg").read_bytes() == b"cat"


def test_overwrite_replaces_a_run_folder(earlier):
    (earlier / "old.txt").write_text("old")
    check_folder(earlier, settings(earlier, overwrite=True))
    with new_folder(earlier, {**OURS, "seed": 1}, 1000, overwrite=True):
        assert load_object(earlier / "config.json")["seed"] == 1 and not (earlier / "old.txt").exists()
    assert [path.name for path in earlier.parent.iterdir()] == ["earlier"]


@pytest.mark.parametrize("flag", ["model_path", "train_data", "hold_contexts", "text_file"])
@pytest.mark.parametrize("where", ["final", "final/deep/file.jsonl", ""])
@pytest.mark.parametrize("linked", [False, True])
def test_overwrite_keeps_what_the_new_run_reads(earlier, tmp_path, flag, where, linked):
    needed = earlier / where
    needed.parent.mkdir(parents=True, exist_ok=True)
    needed.touch() if where else None
    if linked:
        (tmp_path / "link").symlink_to(needed)
        needed = tmp_path / "link"
    message = refusal(check_folder, earlier, settings(earlier, overwrite=True, **{flag: str(needed)}))
    assert f"--{flag}" in message and "lies in it" in message
    outside = str(tmp_path / "elsewhere")
    check_folder(earlier, settings(earlier, overwrite=True, **{flag: outside}))


def test_overwrite_keeps_what_lies_in_it_by_way_of_the_home(earlier, monkeypatch):
    monkeypatch.setenv("HOME", str(earlier.parent))
    assert "lies in it" in refusal(
        check_folder, earlier, settings(earlier, overwrite=True, model_path="~/earlier")
    )


def test_overwrite_does_not_follow_a_link(earlier, tmp_path):
    link = tmp_path / "runs" / "link"
    link.symlink_to(earlier)
    assert "is a link" in refusal(check_folder, link, settings(link, overwrite=True))
    assert load_object(earlier / "config.json") == OURS
    dangling = tmp_path / "runs" / "dangling"
    dangling.symlink_to(tmp_path / "nothing")
    for flags in ({}, {"overwrite": True}, {"resume": True}):
        assert refusal(check_folder, dangling, settings(dangling, **flags))


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file" / "run", tmp_path / "file" / "deep" / "run"):
        assert "cannot be made" in refusal(new_folder, folder, OURS, 1000)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_disk_without_room_is_refused_before_anything_is_deleted(earlier):
    assert "free some space" in refusal(new_folder, earlier, OURS, 10**18, overwrite=True)
    assert load_object(earlier / "config.json") == OURS


def test_what_fails_before_the_run_begins_leaves_no_trace(tmp_path):
    folder, mine = tmp_path / "run", tmp_path / "mine"
    mine.mkdir()
    for place in (folder, mine):
        with pytest.raises(ValueError), without_trace(place):
            (place / "checkpoints").mkdir(parents=True)
            raise ValueError
    assert not folder.exists() and (mine / "checkpoints").is_dir()


def test_folders_of_runs_that_were_killed_while_they_began_are_removed(tmp_path):
    names = {".isentropic-1-a": 0.0, ".isentropic-2-b.old": None, ".isentropic-3-c": None, "run": 0.0}
    for name, time in names.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        if time is not None:
            os.utime(tmp_path / name, (time, time))
    with locked(tmp_path / ".isentropic-2-b.old"):
        remove_left_behind(tmp_path)
        assert (tmp_path / ".isentropic-2-b.old").exists()
    remove_left_behind(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".isentropic-3-c", "run"]


# --- Two at once ----------------------------------------------------------------------------------------------------


def begin(folder: Path, number: int, barrier, answers, overwrite: bool) -> None:
    barrier.wait()
    try:
        with new_folder(folder, {**OURS, "number": number}, 10, overwrite=overwrite):
            answers.put((number, load_object(folder / "config.json")["number"]))
            barrier.wait()
    except InputError as error:
        answers.put((number, str(error)))
        barrier.wait()


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_runs_that_begin_together_one_gets_the_folder(tmp_path, overwrite):
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(4), context.Queue()
    folder = tmp_path / "runs" / "one"
    workers = [context.Process(target=begin, args=(folder, n, barrier, answers, overwrite)) for n in range(4)]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    (winner,) = [number for number, answer in found if answer == number]
    assert load_object(folder / "config.json")["number"] == winner
    assert all("in use" in answer for number, answer in found if number != winner)
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


def test_the_lock_of_a_dead_process_does_not_block(earlier):
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold() -> None:
        with locked(earlier):
            held.set()
            os.kill(os.getpid(), 9)

    worker = context.Process(target=hold)
    worker.start()
    assert held.wait(60)
    worker.join(60)
    with locked(earlier):
        pass


def test_a_folder_that_was_replaced_meanwhile_is_not_taken(earlier, monkeypatch):
    import isentropic.run_folder as module

    real = module.take

    def late(handle, folder):
        earlier.rename(earlier.with_name("away"))
        earlier.mkdir()
        (earlier / ".lock").touch()
        real(handle, folder)

    monkeypatch.setattr(module, "take", late)
    assert "in use" in refusal(locked, earlier)


# --- Resuming -------------------------------------------------------------------------------------------------------


def test_resume_needs_an_unfinished_run(earlier, tmp_path):
    assert not is_finished(earlier)
    check_folder(earlier, settings(earlier, resume=True))
    write_json(earlier / "result.json", {"stopped": "interrupted"})
    check_folder(earlier, settings(earlier, resume=True))
    assert not is_finished(earlier)
    write_json(earlier / "result.json", {"stopped": "target"})
    assert is_finished(earlier)
    assert "does not exist" in refusal(check_folder, tmp_path / "none", settings(earlier, resume=True))
    (earlier / "config.json").unlink()
    assert "no config.json" in refusal(check_folder, earlier, settings(earlier, resume=True))


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff", "[" * 10**5])
def test_damaged_files_of_a_run_are_named(earlier, content):
    (earlier / "result.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert "result.json" in refusal(check_folder, earlier, settings(earlier, resume=True))
    (earlier / "config.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert "config.json" in refusal(check_same_run, earlier, OURS)


def begun(**given) -> dict:
    return {**asdict(TrainSettings()), **OURS, "groups": "male,female", "chat": False, **given}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 7),
        ("lora_r", 4),
        ("loss", "gee"),
        ("effective_batch", 16),
        ("micro_batch_size", 4),
        ("learning_rate", 1e-2),
        ("steady", False),
        ("text_file", "text.txt"),
        ("target_gap", 0.05),
        ("chat", True),
        ("groups", "old,young"),
    ],
)
def test_other_settings_are_refused_by_name_with_both_values(earlier, name, value):
    write_json(earlier / "config.json", begun())
    check_same_run(earlier, begun())
    message = refusal(check_same_run, earlier, begun(**{name: value}))
    assert f"--{name} (then {begun()[name]}, now {value})" in message
    if name not in ("groups", "chat"):
        early = settings(earlier, resume=True, **{name: value})
        assert f"--{name} " in refusal(check_folder, earlier, early)


def test_settings_that_change_no_result_may_differ_and_are_written_down(earlier):
    write_json(earlier / "config.json", begun())
    now = begun(lang="zh", report_to="tensorboard", max_steps=30, log_steps=2, output_dir="elsewhere")
    check_same_run(earlier, now)
    note_resume(earlier, 7, now)
    note_resume(earlier, 9, now)
    config = load_object(earlier / "config.json")
    changed = {"lang": "zh", "report_to": "tensorboard", "max_steps": 30, "log_steps": 2}
    assert config.pop("resumed") == [{"after_step": 7, **changed}] and config == begun()
    note_resume(earlier, 12, begun())
    assert load_object(earlier / "config.json")["resumed"][1]["max_steps"] == begun()["max_steps"]


def test_an_unchanged_resume_leaves_the_config_alone(earlier):
    write_json(earlier / "config.json", begun())
    there = (earlier / "config.json").stat()
    note_resume(earlier, 7, begun())
    assert (earlier / "config.json").stat() == there


def test_a_run_goes_on_with_its_model_and_its_prompts(earlier):
    write_json(earlier / "config.json", begun())
    assert "another model" in refusal(check_same_run, earlier, begun(model_sha256="c" * 64))
    assert "other prompts" in refusal(check_same_run, earlier, begun(data_sha256="c" * 64))
    assert "other contexts" in refusal(check_same_run, earlier, begun(contexts_sha256="c" * 64))


def test_temporaries_of_a_killed_process_are_removed(earlier):
    (earlier / ".config.json.17.tmp").write_text("{")
    (earlier / ".final.17.tmp").mkdir()
    (earlier / ".final.17.tmp" / "model.safetensors").write_text("half")
    (earlier / "checkpoints").mkdir()
    (earlier / "checkpoints" / ".trained.json.17.tmp").write_text("{")
    clean(earlier)
    assert sorted(path.name for path in earlier.rglob("*")) == ["checkpoints", "config.json"]


@pytest.mark.parametrize("end", ['{"step": 3, "ga', "\x00\x00", '{"gap": 1}', "17", "[" * 10**5])
def test_metrics_are_read_up_to_the_line_that_a_crash_cut_short(earlier, end):
    (earlier / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n' + end)
    assert read_metrics(earlier) == [{"step": 1}, {"step": 2}]

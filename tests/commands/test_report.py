"""`isentropic report` and `isentropic prompts`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from isentropic.prompts.load import load_prompts
from tiny import QUICK

# ---- report and prompts ------------------------------------------------------------------------------------------


def test_report_writes_the_same_bytes_again(run, finished, tmp_path):
    copy = Path(shutil.copytree(finished, tmp_path / finished.name))
    before = (copy / "report.html").read_bytes()
    (copy / "report.html").unlink()
    code, out, _ = run("report", copy)
    assert code == 0 and "report.html" in out and (copy / "report.html").read_bytes() == before
    assert run("report", copy, "--lang", "zh")[0] == 0
    assert "偏见" in (copy / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "responses.jsonl", "comparison.json", "result.json", "gap_after.json"]
)
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_report_does_what_it_can_with_a_damaged_folder(run, finished, tmp_path, name, how):
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    if how == "missing":
        (copy / name).unlink()
    else:
        whole = (copy / name).read_text(encoding="utf-8")
        (copy / name).write_text(whole[: len(whole) // 2], encoding="utf-8")
    assert run("report", copy)[0] == 0
    assert name in (copy / "report.html").read_text(encoding="utf-8")


def test_report_of_a_json_file(run, tiny_folder, tiny_file, tmp_path):
    file = tmp_path / "m.json"
    run("measure", tiny_folder, "--train_data", tiny_file, "--json", file, *QUICK)
    gap = json.loads(file.read_text(encoding="utf-8"))["gap"]
    assert run("report", file)[0] == 0 and (tmp_path / "m.html").is_file()
    assert run("report", file, "--out", tmp_path / "mine.md")[0] == 0
    assert f"{abs(gap):.3f}" in (tmp_path / "mine.md").read_text(encoding="utf-8")


def test_prompts_shows_and_writes(run, tiny_file, tmp_path):
    out_file = tmp_path / "pairs.jsonl"
    code, out, _ = run("prompts", tiny_file, "--out", out_file)
    assert code == 0 and "48:48" in out and "He is a nurse. He" in out
    shown = json.loads(out[out.index("{") : out.rindex("}") + 1])
    assert shown["paired"] is True and shown["counts"] == {"male": 48, "female": 48}
    assert load_prompts(str(out_file)).sha256 == load_prompts(str(tiny_file)).sha256
    before = out_file.read_bytes()
    code, _, err = run("prompts", tiny_file, "--out", out_file)
    assert code == 2 and "exists" in err and out_file.read_bytes() == before
    assert run("prompts", tiny_file, "--out", out_file, "--overwrite")[0] == 0


def test_the_built_in_prompts_are_shown(run):
    code, out, _ = run("prompts")
    assert code == 0 and "built-in gender prompts" in out


def test_out_is_obeyed_for_a_run_folder_too(run, finished, tmp_path):
    copy = Path(shutil.copytree(finished, tmp_path / finished.name))
    before = {file.name: file.read_bytes() for file in copy.iterdir() if file.is_file()}
    for name in ("mine.html", "mine.md"):
        code, out, _ = run("report", copy, "--out", tmp_path / name)
        assert code == 0 and name in out and (tmp_path / name).is_file()
    assert (tmp_path / "mine.html").read_bytes() == before["report.html"]
    assert (tmp_path / "mine.md").read_bytes() == before["report.md"]
    assert {file.name: file.read_bytes() for file in copy.iterdir() if file.is_file()} == before


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_a_folder_in_place_of_the_report_is_one_line(run, finished, tmp_path, name):
    copy = Path(shutil.copytree(finished, tmp_path / finished.name))
    (copy / name).unlink()
    (copy / name).mkdir()
    code, _, err = run("report", copy)
    assert code == 2 and name in err and err.count("\n") == 1
    (tmp_path / "m.json").write_text('{"schema": "isentropic.measure/1", "gap": 0.1}', encoding="utf-8")
    for out in (copy / name, tmp_path / "none" / "x.html", tmp_path / "m.json"):
        code, _, err = run("report", tmp_path / "m.json", "--out", out)
        assert code == 2 and err.count("\n") == 1


@pytest.mark.parametrize("content", [
    b"\xff\xfe", b"", b"[1]", b'{"gap": 1}', b"[" * 100_000, b'{"schema": "isentropic.measure/1", "gap": 1' + b"0" * 5000 + b"}",
    b'{"schema": "isentropic.compare/99"}', b'{"schema": "isentropic.measure/1", "groups": 5}',
    b'{"schema": "isentropic.compare/1", "models": "a"}', b'{"schema": "isentropic.compare/1", "models": []}',
])  # fmt: skip
def test_a_json_file_that_is_none_of_ours_is_one_line(run, tmp_path, content):
    (tmp_path / "m.json").write_bytes(content)
    code, _, err = run("report", tmp_path / "m.json")
    assert code == 2 and err.count("\n") == 1 and not (tmp_path / "m.html").exists()
    code, _, err = run("report", tmp_path / "none.json")
    assert code == 2 and err.count("\n") == 1


def test_a_run_folder_of_another_schema_is_one_line(run, finished, tmp_path):
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    before = json.loads((copy / "gap_before.json").read_text(encoding="utf-8"))
    for wrong in ({"schema": "isentropic.measure/2"}, {"target_gap": -1}, {"gap": 10**400}, {"topics": {}}):
        (copy / "gap_before.json").write_text(json.dumps(before | wrong), encoding="utf-8")
        code, _, err = run("report", copy)
        assert code == 2 and err.count("\n") == 1

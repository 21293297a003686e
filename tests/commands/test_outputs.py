"""Results are refused before the work where they cannot be written, and never take the place of what is not ours."""

import json
import os
from pathlib import Path

import pytest

from isentropic.commands.outputs import check_outputs, is_ours
from isentropic.errors import InputError
from isentropic.files import write_text
from tiny import QUICK

USER = "a thesis\n"


def refused(*words: str, **given: object) -> None:
    with pytest.raises(InputError) as error:
        check_outputs(**given)
    for word in words:
        assert word in str(error.value), error.value


def test_an_input_is_never_an_output(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(USER)
    (tmp_path / "link").symlink_to(data)
    os.link(data, tmp_path / "hard")
    (tmp_path / "folder").mkdir()
    for name in ("data.jsonl", "link", "hard", "folder/../data.jsonl"):
        for overwrite in (False, True):
            refused(
                "--json", "--train_data",
                outputs={"--json": str(tmp_path / name)}, inputs={"--train_data": str(data)}, overwrite=overwrite,
            )  # fmt: skip
    assert data.read_text() == USER


def test_two_outputs_are_never_one_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for other in ("new", "link", "./new"):
        refused(
            "--json",
            "--html",
            outputs={"--json": f"{tmp_path}/new", "--html": f"{tmp_path}/{other}"},
            inputs={},
        )


def test_a_file_of_another_is_kept(tmp_path: Path) -> None:
    for name, text in {
        "a.json": USER, "b.json": '{"schema": "x/1"}', "c.html": "<!doctype html><p>isentropic", "d.jsonl": '{"prompt": "x"}\n',
        "e.md": "# isentropic\n", "f": '{"schema": "isentropic.config/1"}',
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
        refused("exists", outputs={"--json": str(tmp_path / name)}, inputs={})
        check_outputs({"--json": str(tmp_path / name)}, {}, overwrite=True)
        assert (tmp_path / name).read_text() == text


def test_results_of_ours_may_be_replaced(run, tiny_folder, tiny_file, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("m.json", "m.html", "r.jsonl")]
    words = ["measure", tiny_folder, "--train_data", tiny_file, "--pairs", 4, *QUICK]
    for flag, file in zip(("--json", "--html", "--responses_out"), files, strict=True):
        words += [flag, file]
    for _ in range(2):
        assert run(*words)[0] == 0
    for language in ("en", "zh"):
        assert run("report", files[0], "--lang", language)[0] == 0
        assert run("report", files[0], "--lang", language, "--out", tmp_path / "m.md")[0] == 0
    assert all(is_ours(file) for file in [*files, tmp_path / "m.md"])
    (tmp_path / "empty").touch()
    assert is_ours(tmp_path / "empty")
    (tmp_path / "config.json").write_text('{"schema": "isentropic.config/1"}')
    assert not is_ours(files[0]), "it belongs to a run"


def test_what_cannot_be_written_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, word in {
        "folder": "folder", "nowhere/x.json": "does not exist", "x" * 300: "too long", "": "folder",
    }.items():  # fmt: skip
        refused("--html", word, outputs={"--html": str(tmp_path / name)}, inputs={})
    check_outputs({"--json": str(tmp_path / "new.json"), "--html": "/dev/null"}, {"--text_file": None})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("what", ["folder", "file"])
def test_rights_are_looked_at_before_the_work(tmp_path: Path, what: str) -> None:
    (tmp_path / "x.json").write_text("")
    (tmp_path if what == "folder" else tmp_path / "x.json").chmod(0o555)
    for parent in tmp_path.parents[:3]:
        if parent.stat().st_uid == os.getuid():
            parent.chmod(0o755)
    root = os.geteuid() == 0
    if root:  # whom no right stops
        os.seteuid(65534)
    try:
        refused(
            "Permission denied",
            outputs={"--json": str(tmp_path / ("y.json" if what == "folder" else "x.json"))},
            inputs={},
        )
    finally:
        if root:
            os.seteuid(0)


def test_a_link_stays_and_a_pipe_is_written_into(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "text"
    write_text(Path("/dev/null"), "text")
    assert not Path("/dev/null").is_file()


def test_an_output_that_is_an_input_is_refused_by_every_command(
    run, tiny_folder, tiny_file, tmp_path: Path
) -> None:
    before = Path(tiny_file).read_bytes()
    for words in (
        ["measure", tiny_folder, "--train_data", tiny_file, "--json", tiny_file],
        ["compare", tiny_folder, tiny_folder, "--train_data", tiny_file, "--html", tiny_file],
        ["prompts", tiny_file, "--out", tiny_file, "--overwrite"],
        ["measure", tiny_folder, "--responses_in", tiny_file, "--responses_out", tiny_file],
    ):
        code, out, err = run(*words)
        assert code == 2 and "is what" in err and "scoring" not in out
    assert Path(tiny_file).read_bytes() == before
    summary = tmp_path / "m.json"
    summary.write_text(json.dumps({"schema": "isentropic.measure/1"}))
    assert run("report", summary, "--out", summary)[0] == 2
    assert run("report", tmp_path, "--out", tmp_path / "x.html")[0] == 2


def test_a_name_as_long_as_a_file_may_have_is_written(tmp_path: Path) -> None:
    name = str(tmp_path / ("熵" * 83 + ".json"))  # 254 bytes
    check_outputs({"--json": name}, {})
    write_text(Path(name), "text")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["text"]

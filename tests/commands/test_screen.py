"""What is shown never costs a result and never obeys the data."""

import io
import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from isentropic.commands.screen import Screen
from isentropic.text import never_fail, visible
from tiny import QUICK, lines_file, pair_rows

EVIL = "a\x1b[31mb\x9b2Jc\u202ed\u2066e\x07f\x08"


def test_control_and_direction_marks_are_written_out():
    shown = visible(EVIL)
    assert shown == "a\\u001b[31mb\\u009b2Jc\\u202ed\\u2066e\\u0007f\\u0008"
    for kept in ("tab\there", "line\nfeed", "男女比例 💥 é", "\u200d"):
        assert visible(kept) == kept
    file = io.StringIO()
    Screen(console=Console(file=file, markup=False, highlight=False)).say(EVIL)
    assert "\x1b" not in file.getvalue() and "\\u001b" in file.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk", "latin-1", "cp932", "utf-8"])
def test_no_sign_costs_a_line(encoding):
    bytes_ = io.BytesIO()
    stream = io.TextIOWrapper(bytes_, encoding=encoding)
    never_fail(stream)
    stream.write("gap=0.7 (严重偏见 💥) \ud83d\n")
    stream.flush()
    assert b"gap=0.7" in bytes_.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "gbk"])
@pytest.mark.slow
def test_commands_on_a_narrow_screen(tmp_path, tiny_folder, tiny_file, encoding):
    """In a process of its own, because a stream's encoding is settled when Python starts."""
    words = ["measure", tiny_folder, "--train_data", tiny_file, "--pairs", 4, *QUICK]
    code = (
        "from isentropic.cli import main; import sys\n"
        f"for words in {[[*map(str, words), '--json', str(tmp_path / 'm.json'), '--lang', 'zh'], ['prompts', str(tiny_file)]]!r}:\n"
        "    assert main(words) == 0\n"
        f"sys.exit(main({[*map(str, words), '--json', '-']!r}))"
    )
    environment = {"PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    printed = done.stdout.decode(encoding)
    written = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert json.loads(printed[printed.rindex('\n{\n "schema"') :])["label"] == written["label"]


def test_errors_show_what_the_data_holds(run, tmp_path):
    file = lines_file(tmp_path / "rows.jsonl", [{EVIL: "x", "gender\nx": "m"}])
    _, _, err = run("prompts", file)
    assert "\x1b" not in err and "\\u001b" in err and err.count("\n") == 1
    _, _, err = run("prompts", tmp_path / EVIL)
    assert "\x1b" not in err and err.count("\n") == 1
    _, _, err = run("measure", "--nothing" + EVIL + "\nsecond line")
    assert "\x1b" not in err and err.count("\n") == 1
    named = [row | {"topic": EVIL} for row in pair_rows()]
    code, out, _ = run("prompts", lines_file(tmp_path / "named.jsonl", named))
    assert code == 0 and "\x1b" not in out and "\u202e" not in out

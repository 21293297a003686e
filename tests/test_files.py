"""Files are written whole or not at all; a sealed folder tells every damage; errors of the disk are recognised."""

from __future__ import annotations

import errno
import os

import pytest

from isentropic.errors import InputError
from isentropic.files import (
    append_jsonl,
    broken_seal,
    check_room,
    disk_fault,
    read_json,
    read_jsonl,
    replacing,
    seal,
    write_json,
    write_jsonl,
)


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"gap": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_jsonl(tmp_path / "x.jsonl", [{"gap": float("inf")}])
    write_json(tmp_path / "x.json", {"zh": "偏见 💥"})
    assert "偏见 💥" in (tmp_path / "x.json").read_text(encoding="utf-8")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"old": True})
    with pytest.raises(OSError), replacing(file) as temporary:
        temporary.write_text("half of the ne")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert read_json(file) == {"old": True} and [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_name_of_any_length_that_the_disk_takes_can_be_replaced(tmp_path):
    file = tmp_path / ("n" * 250 + ".json")
    write_json(file, {"a": 1})
    assert read_json(file) == {"a": 1}


def test_lines_are_read_back_and_damaged_ones_are_told(tmp_path):
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, [{"a": "x\u2028y"}])
    append_jsonl(file, {"a": "é"})
    with file.open("ab") as end:
        end.write(b'\n[1]\n{"a": \xff}\n{"a"' + b"[" * 10**5)
    found = list(read_jsonl(file))
    assert found[:2] == [(1, {"a": "x\u2028y"}), (2, {"a": "é"})]
    assert [(number, type(row)) for number, row in found[2:]] == [(n, ValueError) for n in (4, 5, 6)]


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff", "[" * 10**5, None])
def test_a_damaged_file_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "x.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=r"x\.json"):
        read_json(tmp_path / "x.json")


def test_room_is_looked_at(tmp_path):
    check_room(tmp_path, 1)
    with pytest.raises(InputError, match="free some space"):
        check_room(tmp_path, 10**18)


# --- Seals ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sealed(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("weights", "deep/state", "empty"):
        (tmp_path / name).write_bytes(name.encode() * 1000 if name != "empty" else b"")
    seal(tmp_path)
    assert broken_seal(tmp_path) is None
    return tmp_path


@pytest.mark.parametrize("name", ["weights", "deep/state"])
@pytest.mark.parametrize("place", [0, 2777, -1])
def test_one_flipped_bit_breaks_the_seal(sealed, name, place):
    data = bytearray((sealed / name).read_bytes())
    data[place] ^= 1
    (sealed / name).write_bytes(data)
    assert "damaged" in str(broken_seal(sealed))


@pytest.mark.parametrize("name", ["weights", "deep/state", "empty"])
def test_a_file_that_is_gone_or_changed_breaks_the_seal(sealed, name):
    content = (sealed / name).read_bytes()
    (sealed / name).write_bytes(content[:-1] or b"x")
    assert "damaged" in str(broken_seal(sealed))
    (sealed / name).unlink()
    assert "missing" in str(broken_seal(sealed))
    (sealed / name).mkdir()
    assert broken_seal(sealed)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"files": 3}', '{"files": {"weights": null}}', None]
)
def test_a_manifest_that_is_gone_or_damaged_is_a_broken_seal(sealed, content):
    (sealed / "manifest.json").unlink()
    if content is not None:
        (sealed / "manifest.json").write_text(content)
    assert broken_seal(sealed)


def test_more_files_do_not_break_a_seal(sealed):
    (sealed / "notes.txt").write_text("mine")
    assert broken_seal(sealed) is None


# --- Errors of the disk ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ENAMETOOLONG"]
)
def test_what_the_disk_refuses_is_recognised_by_its_number(name):
    number = getattr(errno, name)
    assert os.strerror(number) in str(disk_fault(OSError(number, os.strerror(number), "run/config.json")))
    assert "config.json" in str(disk_fault(OSError(number, os.strerror(number), "run/config.json")))
    rust = RuntimeError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")
    assert disk_fault(rust) == os.strerror(number)
    try:
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise RuntimeError("while saving") from error
    except RuntimeError as error:
        assert disk_fault(error) == os.strerror(number)


@pytest.mark.parametrize(
    "words",
    [
        "[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0",
        "PytorchStreamWriter failed writing file data/0: file write failed",
        "basic_ios::clear: iostream error",
    ],
)
def test_the_words_of_torch_are_recognised(words):
    assert disk_fault(RuntimeError(words))


@pytest.mark.parametrize(
    "error", [ValueError("x"), FileNotFoundError(2, "No such file"), KeyError("os error 28"), None]
)
def test_bugs_are_not_taken_for_the_disk(error):
    assert disk_fault(error) is None


def test_the_signature_that_some_programs_put_first_is_not_part_of_a_line(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}\r\n{"a": 2}\r\n', encoding="utf-8-sig")
    assert [row for _, row in read_jsonl(file)] == [{"a": 1}, {"a": 2}]

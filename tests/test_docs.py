"""Commands and links in the documents are real."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from isentropic.cli import Parser, add_train_flags, parser

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (document.name, block)
        for document in DOCUMENTS
        for block in re.findall(rf"```{language}\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    ]


def commands() -> list[tuple[str, list[str]]]:
    lines = [(name, line) for name, block in blocks("bash") for line in block.splitlines()]
    return [(name, shlex.split(line, comments=True)) for name, line in lines if line.strip()]


@pytest.mark.parametrize("document, words", commands(), ids=lambda value: " ".join(value)[:70])
def test_every_command_parses(document: str, words: list[str]) -> None:
    while words and "=" in words[0]:
        words = words[1:]
    if words[:1] == ["isentropic"]:
        parser().parse_args(words[1:])
    elif "train_debiasing.py" in words:
        train = Parser(prog="train_debiasing.py")
        add_train_flags(train)
        train.parse_args(words[words.index("train_debiasing.py") + 1 :])
    elif words[0] == "make":
        goals = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert words[1] in goals
    else:
        files = [word for word in words if word.endswith((".sh", ".py"))]
        assert files, f"{document}: nobody checks {words}"
        assert all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("name, block", blocks("python"), ids=lambda value: value[:20])
def test_python_in_documents_compiles_and_names_what_exists(name: str, block: str) -> None:
    compile(block, name, "exec")
    for names in re.findall(r"from isentropic import (.*)", block):
        import isentropic

        assert {word.strip() for word in names.split(",")} <= set(isentropic.__all__)


@pytest.mark.parametrize("script", ["gap_of_your_numbers.py", "loss_in_your_own_loop.py"])
def test_examples_run(script: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "nats" in done.stdout


def test_public_names_are_found_and_import_is_light() -> None:
    code = (
        "import sys, isentropic, isentropic.cli; assert 'torch' not in sys.modules; "
        "[getattr(isentropic, name) for name in isentropic.__all__]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_api_page_is_that_of_the_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    from make_api import make

    written = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert written == make(), "docs/api.md is not up to date: run python docs/make_api.py"

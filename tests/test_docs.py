"""Commands and links in the documents are real."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from isentropic.cli import main
from isentropic.commands.parser import Parser, add_train_flags, parser
from tiny import make_benchmarks, sample, samples_file

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
        goals = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert words[1] in goals
    else:
        files = [word for word in words if word.endswith((".sh", ".py"))]
        assert files, f"{document}: nobody checks {words}"
        assert all((ROOT / file).is_file() for file in files)


QUICK = "--bf16 off --max_new_tokens 4"
TRAIN = (
    f"{QUICK} --max_steps 1 --max_pairs 16 --validation_pairs 8 --test_pairs 8 --other_pairs 2 --overwrite"
)
RUNNABLE = {
    tuple(words): None
    for _, words in commands()
    if ("train_debiasing.py" in words or words[0] == "isentropic")
    and not {"--load_in_4bit", "--tasks"} & set(words)  # needs a GPU; needs the hub
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, tiny_file: Path) -> Path:
    """A folder with what the documents take for granted: pairs, problems, a finished run."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(tiny_file, folder / "pairs.jsonl")
    problems = [f"He has {n} pens and gives his friend one. How many are left?" for n in range(20)]
    (folder / "problems.csv").write_text("question\n" + "\n".join(problems) + "\n", encoding="utf-8")
    make_benchmarks(folder / "public_sets")
    model, runs = str(tiny_folder), str(folder / "runs")
    where = ["--model_path", model, "--run_name", "demo", "--output_dir", runs]
    assert main(["train", *where, *TRAIN.split()]) == 0
    shutil.copytree(folder / "runs" / "demo", folder / "runs" / "first")
    for name in ("before", "after"):
        samples_file(folder / f"{name}_samples", "quiz", [sample(i, acc=i % 2) for i in range(9)])
    kept = ["--responses_out", str(folder / "responses.jsonl"), "--pairs", "8"]
    assert main(["measure", model, *QUICK.split(), *kept]) == 0
    return folder


@pytest.mark.parametrize("words", RUNNABLE, ids=lambda words: " ".join(words)[:90])
@pytest.mark.slow
def test_every_command_runs(words: tuple[str, ...], desk: Path, tiny_folder: Path, monkeypatch: Any) -> None:
    """As printed, on a tiny model, with few pairs and steps. Later flags win."""
    for flag, package in (("--lora_r", "peft"), ("tensorboard", "tensorboard")):
        if flag in words:
            pytest.importorskip(package)
    monkeypatch.chdir(desk)
    known = [str(tiny_folder) if word == "smollm2-135m" else word for word in words]
    if words[0] == "isentropic":
        command, given = known[1], known[2:]
    else:
        command, given = "train", known[known.index("train_debiasing.py") + 1 :]
    if command == "train":
        given += [*TRAIN.split(), "--model_path", str(tiny_folder)]
    elif command in ("measure", "compare"):
        given += [*QUICK.split(), "--pairs", "8"]
    assert main([command, *given]) == 0


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
@pytest.mark.slow
def test_examples_run(script: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "nats" in done.stdout


@pytest.mark.slow
def test_the_training_example_runs(tiny_folder: Path, tmp_path: Path) -> None:
    """The example itself, with a tiny model in the place of the embedded one."""
    text = (ROOT / "examples" / "train_in_python.py").read_text(encoding="utf-8")
    assert '"smollm2-135m"' in text
    script = tmp_path / "train.py"
    script.write_text(text.replace("smollm2-135m", str(tiny_folder)), encoding="utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "python" / "final" / "model.safetensors").is_file()


@pytest.mark.slow
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

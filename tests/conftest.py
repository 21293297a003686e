"""What the tests share: an offline machine, the command line in this process, and one of each tiny thing."""

from __future__ import annotations

import gc
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_CACHE = tempfile.TemporaryDirectory(prefix="isentropic-tests-")
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ISENTROPIC_CACHE": _CACHE.name,
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest  # noqa: E402

from tiny import make_benchmarks, make_folder, make_model, make_prompts, make_tokenizer  # noqa: E402


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """The tokenizer with a pad token of its own. Shared: do not change it."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def padless_tokenizer() -> Any:
    """The tokenizer whose pad token is its end of text. Shared: do not change it."""
    return make_tokenizer(pad="<end>")


@pytest.fixture(scope="session")
def chat_tokenizer() -> Any:
    """The tokenizer with a chat template. Shared: do not change it."""
    return make_tokenizer(chat=True)


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """``tiny_model("llama", seed=0)``: a new model each time; ``gpt2`` and ``qwen2`` too."""
    return make_model


@pytest.fixture
def tiny_loaded(tiny_tokenizer: Any) -> Any:
    """A new tiny Llama with its tokenizer, as `load_model` would give it."""
    from isentropic.models.identity import model_sha256
    from isentropic.models.model import LoadedModel

    model = make_model()
    return LoadedModel(model, tiny_tokenizer, "tiny", model_sha256(model))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Llama, for the command line. Shared: read it only."""
    return make_folder(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_prompts() -> Any:
    """48 pairs in 6 topics, in three splits."""
    return make_prompts()


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory, tiny_prompts: Any) -> Path:
    """The same pairs as a JSONL file for ``--train_data``."""
    from isentropic.prompts.preview import write_prompts

    return write_prompts(tiny_prompts, tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made-up test sets. Shared: copy it before changing it."""
    return make_benchmarks(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="session")
def public_sets() -> Path:
    """The folder of the real test sets, where the machine has one."""
    folder = os.environ.get("ISENTROPIC_BENCHMARKS")
    if not folder:
        pytest.skip("ISENTROPIC_BENCHMARKS names no folder")
    return Path(folder)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output and standard error of a command line, as a shell would see them."""

    from isentropic.cli import main

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as left:
            code = int(str(left.code))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session", autouse=True)
def _temporary_cache() -> Iterator[None]:
    yield
    _CACHE.cleanup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that train a model of their own through the whole command (`go`, `keep`) are slow."""
    gc.freeze()  # accelerate collects twice in each training: not all that the tests have imported, each time
    for item in items:
        if {"go", "keep"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which versions were tested."""
    floor = (Path(__file__).parents[1] / "requirements.floor").read_text(encoding="utf-8")
    found = [f"python {platform.python_version()}"]
    for name in [
        *re.findall(r"^([\w-]+)==", floor, re.MULTILINE),
        "tensorboard",
        "wandb",
        "trackio",
        "deepspeed",
        "lm_eval",
    ]:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    terminalreporter.write_line("tested with " + ", ".join(found))


@pytest.fixture
def go(tmp_path: Path, tiny_folder: Path, tiny_file: Path) -> Callable[..., Any]:
    """``go("name", setting=...)`` makes a run: what ``train`` returned, the run folder, and what was said."""
    from runs import runner

    return runner(tmp_path / "runs", tiny_folder, tiny_file)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, tiny_file: Path) -> Path:
    """The folder of one finished run through the command line. Copy it before changing it."""
    from isentropic.cli import main
    from runs import flags

    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", *flags(tiny_folder, tiny_file, folder), "--run_name", "finished"]) == 0
    return folder / "finished"

"""A small part of the campaign of kills and crash points: one death at each kind of operation on a file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
CASES = [
    ("open run/metrics.jsonl", "half"),
    ("safetensors", "half"),
    ("torch.save", "empty"),
    ("os.rename run/checkpoints/checkpoint-4/.manifest.json", "before"),
    ("os.remove", "before"),
    ("os.rename run/checkpoints/.trained.json", "before"),
    ("os.rename run/.result.json", "before"),
]


@pytest.fixture(scope="module")
def torture(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        patch.setenv("ISENTROPIC_CACHE", str(tmp_path_factory.mktemp("cache")))
        import torture as module

        module.warm_up()
        model = module.tiny_model()
        yield module, model, module.whole_run("steps", model, tmp_path_factory.mktemp("whole") / "steps")


def test_every_kind_of_operation_is_heard(torture: Any) -> None:
    _, _, whole = torture
    kinds = {line.split()[0] for line in whole["operations"]}
    assert kinds == {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "safetensors", "torch.save"}


@pytest.mark.parametrize(("operation", "how"), CASES, ids=lambda value: str(value).replace("/", "."))
def test_a_run_that_dies_at_an_operation_ends_as_if_it_had_not(
    torture: Any, tmp_path: Path, operation: str, how: str
) -> None:
    module, model, whole = torture
    found = [n for n, line in enumerate(whole["operations"], 1) if line.startswith(operation)]
    first = {"at": found[len(found) // 2], "how": how}
    case = module.one_case("steps", model, tmp_path, first, random.Random(0), whole)
    assert case["starts"][0]["exit"] == module.DEAD, case
    assert case["outcome"] == "same", case


def test_a_run_that_is_killed_ends_as_if_it_had_not(torture: Any, tmp_path: Path) -> None:
    module, model, whole = torture
    case = module.one_case(
        "steps", model, tmp_path, {"kill_after": 0.6 * whole["seconds"]}, random.Random(0), whole
    )
    assert case["outcome"] == "same", case


@pytest.mark.parametrize("blocks", [1, 60])
def test_a_limit_of_file_size_is_one_line_and_loses_nothing(
    torture: Any, tmp_path: Path, blocks: int
) -> None:
    """In place of a full disk or a quota: whatever the library that writes, the words are ours and the exit code is 2."""
    import resource

    module, model, whole = torture
    words = [*module.COMMON, *module.WAYS["steps"].split(), "--model_path", model]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (blocks * 1024, blocks * 1024))

    code, log, _ = module.start(words, tmp_path, limit)
    (error,) = [line for line in log.splitlines() if line.startswith("isentropic: error: ")]
    assert code == 2 and "Traceback" not in log and "what was saved before is kept" in error
    run = tmp_path / "runs" / "run"
    code, log, _ = module.start(
        [*words, *["--resume"] * (run / "config.json").exists()], tmp_path, lambda: None
    )
    assert code == 0, log
    now = {name: sha for name, sha in module.content(run).items() if name != "curves.png"}
    assert now == {name: sha for name, sha in whole["content"].items() if name != "curves.png"}

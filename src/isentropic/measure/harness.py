"""The door to lm-evaluation-harness: its tasks, with data from a folder or the hub, and a model's answers."""

from __future__ import annotations

import csv
import difflib
import importlib.util
import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isentropic.errors import InputError
from isentropic.files import json_line, read_jsonl, write_text
from isentropic.measure.ability import Sample
from isentropic.models.load import without_network
from isentropic.models.model import LoadedModel
from isentropic.models.reading import reading, reason
from isentropic.text import is_text, short

Documents = Iterator[dict[str, Any]]


# --- Public sets as they were published ---------------------------------------------------------------------


def objects(file: Path) -> Documents:
    for _, row in read_jsonl(file):
        if isinstance(row, ValueError):
            raise row
        yield row


def written(value: Any, name: str) -> str:
    if not is_text(value):
        raise ValueError(f"{name!r} is {short(value)}, and a text is needed")
    return str(value)


def written_list(values: Any, name: str) -> list[str]:
    if not isinstance(values, list):
        raise ValueError(f"{name!r} is {short(values)}, and a list of texts is needed")
    return [written(value, name) for value in values]


def chosen(label: Any, answers: Sequence[Any]) -> int:
    """The place of the right answer."""
    if not 0 <= int(label) < len(answers):
        raise ValueError(f"label {label} is none of {len(answers)} answers")
    return int(label)


def arc(file: Path) -> Documents:
    """Rows of `question, A, B, C, D, letter`, without a header."""
    for cells in csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline=""), strict=True):
        question, *texts, answer = cells
        labels = list("ABCDE"[: len(texts)])
        if answer not in labels or len(labels) < len(texts):
            raise ValueError(f"{len(texts)} answers, the right one {short(answer)}; letters are A to E")
        choices = {"text": written_list(texts, "choices"), "label": labels}
        yield {"question": written(question, "question"), "choices": choices, "answerKey": answer}


def piqa(file: Path) -> Documents:
    """`goal, sol1, sol2`; the labels are beside them, one a line."""
    beside = file.with_name(f"{file.stem}-labels.lst")
    rows, labels = list(objects(file)), beside.read_text(encoding="utf-8-sig").split()
    if len(rows) != len(labels):
        raise ValueError(f"{beside.name} has {len(labels)} labels for {len(rows)} items")
    for row, label in zip(rows, labels, strict=True):
        texts = {name: written(row[name], name) for name in ("goal", "sol1", "sol2")}
        yield texts | {"label": chosen(label, "01")}


def lambada(file: Path) -> Documents:
    for row in objects(file):
        yield {"text": written(row["text"], "text")}


def hellaswag(file: Path) -> Documents:
    """As published, or the form where activity and context are one `query`."""
    for row in objects(file):
        activity, _, context = row.get("query", "").partition(": ")
        parts = {"activity_label": activity, "ctx_a": context, "ctx_b": ""} if "query" in row else row
        yield {
            **{name: written(parts[name], name) for name in ("activity_label", "ctx_a")},
            "ctx_b": parts["ctx_b"] and written(parts["ctx_b"], "ctx_b"),
            "endings": written_list(row["endings"], "endings"),
            "label": str(chosen(row["label"], row["endings"])),
        }


PUBLISHED: dict[str, tuple[str, Callable[[Path], Documents]]] = {
    "arc_easy": ("arc_easy/ARC-Easy*.csv", arc),  # the test set comes before the validation set
    "piqa": ("piqa/*valid.jsonl", piqa),
    "lambada_openai": ("lambada/lambada_test*.jsonl", lambada),
    "hellaswag": ("hellaswag/hellaswag_val*.jsonl", hellaswag),
}
"""Task -> where a folder of public sets has its file, and how that is read."""


def published(task: str, folder: str | None) -> Path | None:
    """The file of a task in a folder of public sets; None where it is not there."""
    if folder is None or task not in PUBLISHED:
        return None
    return next(iter(sorted(Path(folder).glob(PUBLISHED[task][0]))), None)


def documents(task: str, file: Path) -> list[dict[str, Any]]:
    """The items of a published file, in the form that the task expects of the hub.

    Raises:
        InputError: an item is damaged, or there is none.
    """
    found: list[dict[str, Any]] = []
    try:
        found.extend(PUBLISHED[task][1](file))
    except (ValueError, LookupError, TypeError, AttributeError, csv.Error, OSError) as error:
        raise InputError(
            f"{str(file)!r}: item {len(found) + 1} of {task} cannot be read ({reason(error)}); a set with a "
            "hole is another test; fetch the file again"
        ) from error
    if not found:
        raise InputError(f"{str(file)!r} is empty; {task} has no item to answer; fetch the file again")
    return found


def local_task(task: str, file: Path, folder: Path) -> str:
    """A YAML file of the harness's own task with its data from a file, which is written in the hub's form."""
    import lm_eval.tasks

    data = folder / f"{task}.jsonl"
    write_text(data, "".join(json_line(document) for document in documents(task, file)))
    own = next(Path(lm_eval.tasks.__file__).parent.glob(f"**/{task}.yaml"))
    config = {
        "include": str(own),
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
    }
    written = folder / f"{task}.yaml"
    write_text(written, json.dumps(config))  # JSON is YAML
    return str(written)


# --- Tasks and answers --------------------------------------------------------------------------------------


def check_installed() -> None:
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError(
            "lm-evaluation-harness is not installed; it asks the questions; pip install 'isentropic[eval]', "
            "or compare runs that it has made elsewhere with --samples"
        )


@contextmanager
def harness_tasks(names: Sequence[str], benchmarks: str | None = None) -> Iterator[list[Any]]:
    """Tasks of lm-evaluation-harness, ready to be asked.

    Args:
        names: of tasks, groups or tags, or YAML files of tasks.
        benchmarks: a folder with public sets as they were published; what it has is not asked of the hub.

    Raises:
        InputError: the harness is missing, there is no such task, its data cannot be read or fetched, or it
            runs code that the model writes.
    """
    check_installed()
    with tempfile.TemporaryDirectory(prefix="isentropic-tasks-") as scratch:
        yield load_tasks(names, benchmarks, Path(scratch))


def load_tasks(names: Sequence[str], benchmarks: str | None, scratch: Path) -> list[Any]:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval.tasks import TaskManager

    files = {name: file for name in names if (file := published(name, benchmarks))}
    # Its index of all tasks takes long to make, and is not needed for what is in a file.
    manager = TaskManager(include_defaults=any(not (name in files or Path(name).is_file()) for name in names))
    tasks: dict[str, Any] = {}
    for name in names:
        if name not in files and name not in manager.task_index and not Path(name).is_file():
            near = difflib.get_close_matches(name, manager.task_index, 1)
            raise InputError(
                f"--tasks names {short(name)}, which lm-evaluation-harness does not know; nothing can be "
                f"asked; {f'did you mean {near[0]}?' if near else 'lm-eval ls tasks lists what it knows'}"
            )
        source = local_task(name, files[name], scratch) if name in files else name
        wrong = "what the file says is wrong, or " if Path(name).is_file() else ""
        with (
            reading(
                f"task {short(name)} cannot be loaded",
                f"{wrong}its data comes from the hub, which must be reachable; of a folder, --benchmarks "
                f"reads {', '.join(PUBLISHED)}",
            ),
            without_network(name, str(scratch) if name in files else name),
        ):
            tasks |= manager.load([source])["tasks"]
    for name, task in tasks.items():
        if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
            raise InputError(
                f"task {name!r} runs code that the model writes, or shows it pictures; neither is done here; "
                "run it with lm-eval itself and compare with --samples"
            )
    return list(tasks.values())


def answers(
    loaded: LoadedModel, tasks: Sequence[Any], *, limit: int | None = None, batch_size: int = 8
) -> dict[str, list[Sample]]:
    """A model's answers to the tasks, item by item.

    Args:
        loaded: the model; it answers in the dtype of its weights.
        tasks: of `harness_tasks`.
        limit: the first so many items of each task; all of them if None.
        batch_size: rows in a forward pass.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size)
    found = simple_evaluate(
        model=model,
        tasks=list(tasks),
        limit=limit,
        bootstrap_iters=0,
        log_samples=True,
        task_manager=TaskManager(include_defaults=False),
    )
    samples: dict[str, list[Sample]] = found["samples"]
    return samples

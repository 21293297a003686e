"""The run folder: the only thing that passes between commands. What is written there, and how it is read back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from isentropic.batches import Item
from isentropic.errors import InputError
from isentropic.measure import Measurement
from isentropic.models import LoadedModel, check_room, context_length, vocabulary_size
from isentropic.prompts import Prompt, PromptSet
from isentropic.responses import Example
from isentropic.settings import TrainSettings

FINISHED = "result.json"


def write_json(path: Path, content: Any) -> None:
    path.write_text(
        json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that an earlier run wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        content = error
    if not isinstance(content, dict):
        raise InputError(
            f"{str(path)!r} is damaged; the run cannot be told from another; give another --run_name, or --overwrite"
        )
    return content


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


# --- Making the folder ----------------------------------------------------------------------------------------------


def check_folder(folder: Path, settings: TrainSettings) -> None:
    """A run folder is made, gone on with, or deleted on request; never overwritten in silence."""
    if settings.resume:
        if not (folder / "config.json").is_file():
            raise InputError(
                f"run folder {str(folder)!r} does not exist; there is nothing to resume; check --run_name and "
                f"--output_dir, or leave --resume out"
            )
        if (folder / FINISHED).is_file():
            stopped = read_json(folder / FINISHED).get("stopped")
            if stopped != "interrupted":
                raise InputError(
                    f"run {str(folder)!r} is finished ({stopped}); there is nothing to resume; give another --run_name"
                )
    elif folder.exists() and not settings.overwrite:
        raise InputError(
            f"run folder {str(folder)!r} exists; its results would be lost; give another --run_name, --resume to go on "
            f"with it, or --overwrite to delete it"
        )


def check_same_run(folder: Path, prompts: PromptSet, loaded: LoadedModel) -> None:
    """A run goes on with the model and the prompts it began with."""
    config = read_json(folder / "config.json")
    for what, key, now, flag in (
        ("another model", "model_sha256", loaded.sha256, "--model_path"),
        ("other prompts", "data_sha256", prompts.sha256, "--train_data"),
    ):
        if config.get(key) != now:
            raise InputError(
                f"run {str(folder)!r} was started with {what} ({key} {str(config.get(key))[:8]}, now {now[:8]}); the "
                f"rest of it would be another run; give the same {flag}, or another --run_name"
            )


def prepare_folder(folder: Path, settings: TrainSettings, parameters: int) -> None:
    parent = Path(settings.output_dir)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        # The best weights and the final ones; or the best ones and, while the new one is being written, two checkpoints
        # of weights and the optimizer's two moments.
        check_room(parent, parameters * (28 if settings.save_steps else 8))
        if settings.overwrite and folder.exists():
            if not (folder / "config.json").is_file():
                raise InputError(
                    f"--overwrite would delete {str(folder)!r}, which has no config.json and so is no run folder; "
                    f"give another --run_name"
                )
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(
            f"run folder {str(folder)!r} cannot be made ({error.strerror}); a run needs a place to write; give another "
            f"--output_dir"
        ) from error


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that resumes, if one was saved."""
    checkpoints = [
        path for path in folder.glob("checkpoints/checkpoint-*") if (path / "trainer_state.json").is_file()
    ]
    return str(max(checkpoints, key=lambda path: int(path.name.split("-")[1]))) if checkpoints else None


def limited(prompts: PromptSet, most: int | None) -> PromptSet:
    """The first ``most`` pairs (or prompts of each group)."""
    if most is None:
        return prompts
    if prompts.paired:
        kept = {p.pair_id for twins in prompts.tuples()[:most] for p in twins}
        return dataclasses.replace(prompts, prompts=tuple(p for p in prompts.prompts if p.pair_id in kept))
    seen: dict[str, int] = {}
    chosen = []
    for prompt in prompts.prompts:
        seen[prompt.group] = seen.get(prompt.group, 0) + 1
        if seen[prompt.group] <= most:
            chosen.append(prompt)
    return dataclasses.replace(prompts, prompts=tuple(chosen))


# --- Responses, out and in ------------------------------------------------------------------------------------------


def response_rows(measurement: Measurement, tokenizer: Any, **extra: Any) -> list[dict[str, Any]]:
    """One row an example: enough for anyone to recompute each figure."""
    return [
        {
            **extra,
            "pair_id": example.prompt.pair_id,
            "group": example.prompt.group,
            "topic": example.prompt.topic,
            "cell": example.prompt.cell,
            "source": example.source,
            "sample": example.sample,
            "prompt": example.prompt.text,
            "response": tokenizer.decode(example.response_ids),
            "prompt_ids": list(example.prompt_ids),
            "response_ids": list(example.response_ids),
            "entropy": float(value),
        }
        for item, values in zip(measurement.items, measurement.entropies, strict=True)
        for example, value in zip(item.examples, values, strict=True)
    ]


def stored_items(file: str, loaded: LoadedModel, *, use_ids: bool = True) -> tuple[PromptSet, list[Item]]:
    """Prompts and responses of a JSONL file, to be scored without generating.

    Rows need ``group``, ``prompt`` and ``response_ids`` or ``response``; ``pair_id``, ``topic``, ``source`` are used
    where they are there. A ``response`` without ids is encoded as text, without an end token; with ``use_ids`` off
    every one is, as for a model of another tokenizer.

    Raises:
        InputError: the file is missing, a line is malformed, or an id is not in the model's vocabulary.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(f"responses file {file!r} does not exist; there is nothing to score; check the path")
    vocabulary = vocabulary_size(loaded.model)
    context = context_length(loaded.model)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"responses file {file!r} is not UTF-8 ({error}); its text cannot be read; save it as UTF-8"
        ) from error
    by_pair: dict[Any, list[Example]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        example = stored_example(file, number, line, loaded, vocabulary, use_ids)
        if context is not None and len(example) > context:
            raise InputError(
                f"{file!r} line {number} has {len(example)} tokens and the model's context is {context}; it cannot "
                f"be read whole; leave the line out"
            )
        prompt = example.prompt
        by_pair.setdefault(prompt.pair_id or (prompt.group, prompt.text), []).append(example)
    if not by_pair:
        raise InputError(f"responses file {file!r} is empty; there is nothing to score; give one with rows")
    prompts = dict.fromkeys(example.prompt for examples in by_pair.values() for example in examples)
    found = dict.fromkeys(prompt.group for prompt in prompts)
    groups = ("male", "female") if set(found) == {"male", "female"} else tuple(found)
    if len(groups) < 2:
        raise InputError(
            f"responses file {file!r} has one group only, {groups[0]!r}; a gap needs two; add the other"
        )
    items = []
    for index, examples in enumerate(by_pair.values()):
        of_item = dict.fromkeys(example.prompt for example in examples)
        items.append(Item(tuple(sorted(of_item, key=lambda p: groups.index(p.group))), examples, index))
    whole = all([prompt.group for prompt in item.prompts] == list(groups) for item in items)
    if not whole:
        items = [
            Item((prompt,), [e for e in item.examples if e.prompt == prompt and e.source == prompt.group])
            for item in items
            for prompt in item.prompts
        ]
        items = [
            Item(item.prompts, item.examples, index)
            for index, item in enumerate(i for i in items if i.examples)
        ]
    return PromptSet(tuple(prompts), groups, file), items


def stored_example(
    file: str, number: int, line: str, loaded: LoadedModel, vocabulary: int, use_ids: bool
) -> Example:
    try:
        row = json.loads(line)
        names = {key: name_of(row, key) for key in ("group", "pair_id", "topic", "cell", "source")}
        if not isinstance(row["prompt"], str) or names["group"] is None:
            raise TypeError("prompt and group are text")
        group, source = names["group"], names.pop("source")
        prompt = Prompt(text=row["prompt"], split="test", row=number, **names)  # type: ignore[arg-type]
        ids, prompt_ids = (row.get(key) if use_ids else None for key in ("response_ids", "prompt_ids"))
        if ids is None:
            ids = loaded.tokenizer(row["response"], add_special_tokens=False).input_ids
        prompt_ids = prompt_ids or loaded.tokenizer(prompt.text).input_ids
        if not all(isinstance(i, int) for i in (*ids, *prompt_ids)):
            raise TypeError("token ids are whole numbers")
        ids, prompt_ids = tuple(ids), tuple(prompt_ids)
        sample = int(row.get("sample") or 0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file!r} line {number} cannot be used ({type(error).__name__}: {error}); a row is a JSON object with "
            f"group, prompt and response_ids or response; mend or delete the line"
        ) from error
    if not ids or not prompt_ids:
        raise InputError(
            f"{file!r} line {number} has an empty prompt or response; it has no entropy; delete the line"
        )
    strange = [i for i in ids + prompt_ids if not 0 <= i < vocabulary]
    if strange:
        raise InputError(
            f"{file!r} line {number} has token id {strange[0]} and the model's vocabulary ends at {vocabulary - 1}; the "
            f"responses are of another tokenizer; leave out prompt_ids and response_ids to encode the text anew"
        )
    return Example(prompt, prompt_ids, ids, source or group, sample)


def name_of(row: dict[str, Any], key: str) -> str | None:
    """A name or a number as text; None where the row has none."""
    value = row[key] if key == "group" else row.get(key)
    if value is not None and not isinstance(value, (str, int)):
        raise TypeError(f"{key} is {value!r}")
    return None if value is None else str(value)

"""Responses written to JSON lines and read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from isentropic.errors import InputError
from isentropic.models.model import LoadedModel, context_length, vocabulary_size
from isentropic.prompts.prompt_set import Prompt, PromptSet
from isentropic.responses.batches import Item
from isentropic.responses.sample import Example


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

"""Responses written to JSON lines and read back."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isentropic.errors import InputError
from isentropic.models.model import LoadedModel, context_length, vocabulary_size
from isentropic.models.reading import reading
from isentropic.prompts.prompt_set import Prompt, PromptSet
from isentropic.responses.batches import Item
from isentropic.responses.encode import check_template, encode_prompt, follows_chat
from isentropic.responses.response import Example, Sampling, Tokens
from isentropic.text import json_value


@dataclass(frozen=True)
class Row:
    """One line of a file of responses; ``None`` where it does not say."""

    number: int
    prompt: Prompt
    source: str
    sample: int
    response: str | None
    prompt_ids: Tokens | None
    response_ids: Tokens | None


def stored_items(
    file: str, loaded: LoadedModel, sampling: Sampling | None = None, *, writer: LoadedModel | None = None
) -> tuple[PromptSet, list[Item]]:
    """Prompts and responses of a JSONL file, to be scored without generating.

    Rows need ``group``, ``prompt`` and ``response_ids`` or ``response``; ``pair_id``, ``topic``, ``filler``,
    ``source``, ``sample`` are used where they are there. Text without ids is encoded together with its
    prompt, which goes through the chat template where ``sampling.chat`` is on (:func:`stored_chat`).

    Args:
        writer: the model whose ids the file holds, where its tokenizer is another one than that of
            ``loaded``: the text is encoded then, and the ids are not used.

    Raises:
        InputError: the file is missing, a line is malformed, an id is not in the model's vocabulary, or the
            ids are not those of the text.
    """
    sampling = sampling or Sampling(chat=stored_chat(file, writer or loaded))
    rows = read_rows(file)
    if writer is not None:
        rows = [as_text(file, row, writer, loaded, sampling) for row in rows]
    if sampling.chat and any(row.prompt_ids is None for row in rows):
        check_template(loaded.tokenizer, sampling)
    notes: list[str] = []
    examples = encoded(file, rows, loaded, sampling, notes)
    groups = groups_of(file, rows)
    by_pair: dict[Any, list[Example]] = {}
    for example in examples:
        prompt = example.prompt
        by_pair.setdefault(prompt.pair_id or (prompt.group, prompt.text), []).append(example)
    items = paired_items(by_pair.values(), groups, notes) or single_items(by_pair.values(), notes)
    if not items:
        raise InputError(
            f"responses file {file!r} scores no prompt on its own responses, and no pair on the same ones; "
            "there is nothing to compare; check pair_id, source and sample"
        )
    prompts = dict.fromkeys(prompt for item in items for prompt in item.prompts)
    return PromptSet(tuple(prompts), groups, file, tuple(notes)), items


def stored_chat(file: str, loaded: LoadedModel, asked: bool | None = None) -> bool:
    """Whether the prompts of a file go through the chat template: their ids say so.
    Where there are none it is as asked for, or else by the rule for prompts that are sampled.

    Raises:
        InputError: the ids say something else than what was asked for.
    """
    rows = read_rows(file)
    known = [row for row in rows if row.prompt_ids is not None]
    if not known:
        return follows_chat([row.prompt for row in rows], loaded.tokenizer) if asked is None else asked
    for row in known:
        check_text(file, row, loaded)
    plain = all(reproduced(row, loaded, Sampling()) for row in known)
    chat = bool(getattr(loaded.tokenizer, "chat_template", None)) and not plain
    if asked is not None and asked != chat:
        raise InputError(
            f"--{'chat' if asked else 'no-chat'} with responses file {file!r}, whose prompt_ids are "
            f"{'' if chat else 'not '}those of a chat; the ids decide; leave the flag out, or leave out "
            "prompt_ids to encode the text"
        )
    return chat


def reproduced(row: Row, loaded: LoadedModel, sampling: Sampling) -> bool:
    """Whether the ids of a row's prompt are those that the sampling's settings give."""
    with reading(f"the prompt of line {row.number} cannot be encoded", "change its text"):
        return row.prompt_ids == encode_prompt(row.prompt.text, loaded.tokenizer, sampling)


def as_text(file: str, row: Row, writer: LoadedModel, loaded: LoadedModel, sampling: Sampling) -> Row:
    """A row without ids, for a model of another tokenizer.
    The end token of the one becomes that of the other.

    Raises:
        InputError: the settings do not give the prompts of the file; they would be scored on other prompts.
    """
    check_text(file, row, writer)
    if row.prompt_ids is not None and not reproduced(row, writer, sampling):
        how = "with" if sampling.chat else "without"
        raise InputError(
            f"{file!r} line {row.number} has prompt_ids that are not those of its prompt {how} the chat "
            "template; the responses were sampled with other settings; give the --chat, --system and "
            "--chat_template_kwargs that were used then"
        )
    text = row.response
    if row.response_ids is not None:
        text = decoded(writer, row.response_ids, skip_special_tokens=True)
        if row.response_ids[-1] == writer.tokenizer.eos_token_id:
            text += str(loaded.tokenizer.eos_token)
    return replace(row, prompt_ids=None, response_ids=None, response=text)


# --- Lines --------------------------------------------------------------------------------------------------


def read_rows(file: str) -> list[Row]:
    """The rows of a file, each checked."""
    if not os.path.isfile(file):
        raise InputError(f"responses file {file!r} does not exist; there is nothing to score; check the path")
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"responses file {file!r} is not UTF-8 ({error}); its text cannot be read; save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputError(
            f"responses file {file!r} cannot be read ({error.strerror}); there is nothing to score; check "
            "its rights"
        ) from error
    rows = [read_row(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise InputError(f"responses file {file!r} is empty; there is nothing to score; give one with rows")
    return rows


def read_row(file: str, number: int, line: str) -> Row:
    try:
        row = json_value(line)
        known = ("group", "pair_id", "topic", "filler", "cell", "source", "split")
        names = {key: name_of(row, key) for key in known}
        group, source = names["group"], names.pop("source")
        if group is None:
            raise TypeError("group is null")
        response = row.get("response")
        if response is None and row.get("response_ids") is None:
            raise KeyError("response")
        for key, text in (("prompt", row["prompt"]), ("response", response or "")):
            if not isinstance(text, str):
                raise TypeError(f"{key} is not text")
            text.encode()  # half an emoji cannot be written as UTF-8
        prompt = Prompt(text=row["prompt"], row=number, **names | {"split": names["split"] or "test"})  # type: ignore[arg-type]
        prompt_ids, response_ids = (ids_of(row, key) for key in ("prompt_ids", "response_ids"))
        sample = row.get("sample")
        if sample is not None and (not isinstance(sample, int) or isinstance(sample, bool) or sample < 0):
            raise TypeError(f"sample is {sample!r}, not a whole number of 0 or more")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{file!r} line {number} cannot be used ({type(error).__name__}: {error}); a row is a JSON "
            "object with group, prompt and response_ids or response; correct or delete the line"
        ) from error
    empty = response_ids == () or (response_ids is None and not response)
    if empty or prompt_ids == () or (prompt_ids is None and not prompt.text):
        raise InputError(
            f"{file!r} line {number} has an empty prompt or response; it has no entropy; delete the line"
        )
    return Row(number, prompt, source or group, sample or 0, response, prompt_ids, response_ids)


def name_of(row: dict[str, Any], key: str) -> str | None:
    """A name or a number as text; None where the row has none."""
    value = row[key] if key == "group" else row.get(key)
    if value is None:
        return None
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise TypeError(f"{key} is {value!r}")
    text = str(value)
    text.encode()
    return text


def ids_of(row: dict[str, Any], key: str) -> Tokens | None:
    ids = row.get(key)
    if ids is None:
        return None
    if not isinstance(ids, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise TypeError(f"{key} is not a list of whole numbers")
    return tuple(ids)


def groups_of(file: str, rows: Sequence[Row]) -> tuple[str, ...]:
    """The groups of a file, two at least; the source of a response is one of them."""
    found = dict.fromkeys(row.prompt.group for row in rows)
    groups = ("male", "female") if set(found) == {"male", "female"} else tuple(found)
    if len(groups) < 2:
        raise InputError(
            f"responses file {file!r} has one group only, {groups[0]!r}; a gap needs two; add the other"
        )
    for row in rows:
        if row.source not in found:
            raise InputError(
                f"{file!r} line {row.number} has the source {row.source!r}, which is not a group of the file "
                f"({', '.join(groups)}); a response comes from the prompt of one of them; correct it or "
                "leave it out"
            )
    return groups


# --- Token ids ----------------------------------------------------------------------------------------------


def encoded(
    file: str, rows: Sequence[Row], loaded: LoadedModel, sampling: Sampling, notes: list[str]
) -> list[Example]:
    """The examples of the rows, by their ids or their text."""
    vocabulary, context = vocabulary_size(loaded.model), context_length(loaded.model)
    examples, apart, halves = [], 0, 0
    prompts: dict[Prompt, Prompt] = {}  # one object a prompt, as where responses are sampled
    for row in rows:
        check_text(file, row, loaded)
        with reading(f"{file!r} line {row.number} cannot be encoded", "correct its text or delete the line"):
            prompt_ids = row.prompt_ids or encode_prompt(row.prompt.text, loaded.tokenizer, sampling)
            ids = row.response_ids
            if ids is None:
                ids, joined = response_tokens(row, prompt_ids, loaded, sampling)
                apart += not joined
                halves += "\ufffd" in str(row.response)
        if not prompt_ids or not ids:
            raise InputError(
                f"{file!r} line {row.number} has an empty prompt or response; it has no entropy; delete the "
                "line"
            )
        strange = [i for i in ids + prompt_ids if not 0 <= i < vocabulary]
        if strange:
            raise InputError(
                f"{file!r} line {row.number} has token id {strange[0]} and the model's vocabulary ends at "
                f"{vocabulary - 1}; the responses belong to another tokenizer; leave out prompt_ids and "
                "response_ids to encode the text"
            )
        if context is not None and len(prompt_ids) + len(ids) > context:
            raise InputError(
                f"{file!r} line {row.number} has {len(prompt_ids) + len(ids)} tokens and the model's context "
                f"is {context}; the model cannot read all of it; leave the line out"
            )
        prompt = prompts.setdefault(row.prompt, row.prompt)
        examples.append(Example(prompt, prompt_ids, ids, row.source, row.sample))
    if apart:
        notes.append(
            f"{apart} of {len(rows)} responses are encoded apart from their prompt, because the tokenizer "
            "joins the two; a model would have written other tokens"
        )
    if halves:
        notes.append(
            f"{halves} of {len(rows)} responses are text with U+FFFD, which stands for half a character; "
            "a model would have written other tokens; store response_ids"
        )
    return examples


def response_tokens(
    row: Row, prompt_ids: Tokens, loaded: LoadedModel, sampling: Sampling
) -> tuple[Tokens, bool]:
    """Token ids of a response as they follow its prompt, and whether the two could be encoded together."""
    assert row.response is not None
    whole = encode_prompt(row.prompt.text, loaded.tokenizer, sampling, row.response)
    if whole[: len(prompt_ids)] == prompt_ids:
        return whole[len(prompt_ids) :], True
    return tuple(loaded.tokenizer(row.response, add_special_tokens=False).input_ids), False


def check_text(file: str, row: Row, loaded: LoadedModel) -> None:
    """Refuse ids that do not match the text beside them: they belong to another tokenizer."""
    vocabulary = len(loaded.tokenizer)
    for ids, text, key in (
        (row.response_ids, row.response, "response"),
        (row.prompt_ids, row.prompt.text, "prompt"),
    ):
        if ids is None or not text or not all(0 <= i < vocabulary for i in ids):
            continue
        there = decoded(loaded, ids)
        again = decoded(loaded, loaded.tokenizer(text, add_special_tokens=False).input_ids)
        wanted = {without_spaces(text), without_spaces(again)}
        if key == "response":
            fits = {
                without_spaces(there),
                without_spaces(decoded(loaded, ids, skip_special_tokens=True)),
            } & wanted
        else:
            fits = {part for part in wanted if part in without_spaces(there)}
        if not fits:
            raise InputError(
                f"{file!r} line {row.number} has {key}_ids that say {there[:60]!r} and the {key} "
                f"{text[:60]!r}; the ids belong to another tokenizer; leave out prompt_ids and response_ids "
                "to encode the text"
            )


def decoded(loaded: LoadedModel, ids: Sequence[int], **options: Any) -> str:
    return str(loaded.tokenizer.decode(list(ids), **options))


def without_spaces(text: str) -> str:
    """What decoders agree on: some put a space before a text, some tidy those before punctuation."""
    return "".join(text.split())


# --- Pairs --------------------------------------------------------------------------------------------------


def paired_items(pairs: Iterable[Sequence[Example]], groups: tuple[str, ...], notes: list[str]) -> list[Item]:
    """Pairs with one prompt of each group, scored on the same responses;
    what has no counterpart is left out and counted."""
    items: list[Item] = []
    parted = unmatched = 0
    for examples in pairs:
        of_pair = dict.fromkeys(example.prompt for example in examples)
        twins = tuple(sorted(of_pair, key=lambda prompt: groups.index(prompt.group)))
        matched = matched_examples(examples, twins)
        if [twin.group for twin in twins] != list(groups) or not matched:
            parted += 1
            continue
        unmatched += len(examples) - len(matched)
        items.append(Item(twins, matched, len(items)))
    if items and parted:
        notes.append(
            f"{parted} pair_ids without one prompt of each group, scored on the same responses, left out"
        )
    if items and unmatched:
        notes.append(f"{unmatched} responses on which not every twin of their pair is scored left out")
    return items


def matched_examples(examples: Sequence[Example], twins: tuple[Prompt, ...]) -> list[Example]:
    """The examples whose response every twin is scored on; all of them where each prompt has its own.

    Of responses with the same source and number the first of one twin is the first of the other, and so on.
    """
    if all(example.source == example.prompt.group for example in examples):
        return list(examples) if {example.prompt for example in examples} == set(twins) else []
    seen: dict[Any, dict[Prompt, Example]] = {}
    alike: Counter[Any] = Counter()
    for example in examples:
        name = (example.source, example.sample)
        seen.setdefault((*name, alike[example.prompt, name]), {})[example.prompt] = example
        alike[example.prompt, name] += 1
    whole = {id(e) for made in seen.values() if made.keys() == set(twins) for e in made.values()}
    return [e for e in examples if id(e) in whole]


def single_items(pairs: Iterable[Sequence[Example]], notes: list[str]) -> list[Item]:
    """Each prompt on its own responses."""
    examples = [example for of_pair in pairs for example in of_pair]
    if any(example.prompt.pair_id for example in examples):
        notes.append("no pair_id has one prompt of each group: each prompt is scored on its own responses")
        single = {example.prompt: replace(example.prompt, pair_id=None) for example in examples}
        examples = [replace(example, prompt=single[example.prompt]) for example in examples]
    own: dict[Prompt, list[Example]] = {}
    for example in examples:
        if example.source == example.prompt.group:
            own.setdefault(example.prompt, []).append(example)
    dropped = len(examples) - sum(map(len, own.values()))
    if own and dropped:
        notes.append(f"{dropped} responses of other prompts left out")
    return [Item((prompt,), made, index) for index, (prompt, made) in enumerate(own.items())]

"""Neutral contexts: beginnings of sentences about nobody in particular,
which continue with a word of one group or another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from isentropic.errors import InputError
from isentropic.prompts.builtin import FILLERS
from isentropic.text import json_value

ROUNDS, STRIDE = 8, 3
"""How many frames of its split each filler takes, and how far apart; no split has a multiple of three."""
FILE = Path(__file__).with_name("contexts.yaml")


@dataclass(frozen=True)
class Context:
    """A text and, for each group, the words that may follow it.

    Attributes:
        text: the context, which names no group.
        words: the continuation of each group, with its leading space where it has one.
        frame: the sentence without what fills it; contexts of one frame are not independent.
        filler: what fills the frame, such as an occupation; recurs over frames, so it is not independent
            either.
        kind: what the words are, such as subjects (*he*, *she*); a model may expect each kind differently.
    """

    text: str
    words: Mapping[str, str]
    frame: str
    filler: str
    kind: str = ""


def builtin_contexts(groups: Sequence[str], split: str) -> list[Context]:
    """The contexts written for this project, fillers of one frame after another.

    Args:
        groups: the two groups, in the order of the signed gap.
        split: ``train`` (what a run may hold or close), ``validation`` (what steers a run that closes) or
            ``test`` (what reports); they share no frame and no occupation.

    Returns:
        The contexts; none where the groups are not male and female.

    Example:
        >>> [c.text + c.words["female"] for c in builtin_contexts(("male", "female"), "train")[:2]]
        ['The nurse said that she', 'The plumber stayed at home because she']
    """
    if set(groups) != {"male", "female"}:
        return []
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    frames = [(kind, frame) for kind, texts in content["frames"][split].items() for frame in texts]
    fillers = FILLERS["occupation"][split]
    # Round by round each filler takes a frame STRIDE further, so that any first few are spread over both.
    return [
        Context(
            text=frame.replace("{occupation}", filler),
            words={group: content["words"][kind][group] for group in groups},
            frame=frame,
            filler=filler,
            kind=kind,
        )
        for shift in range(min(ROUNDS, len(frames)))
        for place, filler in enumerate(fillers)
        for kind, frame in [frames[(place + STRIDE * shift) % len(frames)]]
    ]


def read_contexts(file: str, groups: Sequence[str]) -> list[Context]:
    """Contexts from JSON lines: ``context`` and one field for each group with the words that follow it.

    Raises:
        InputError: the file is missing or empty, or a line lacks a field or holds no text; the line is named.
    """
    try:
        lines = Path(file).expanduser().read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--hold_contexts {file!r} cannot be read ({error}); without contexts nothing can be held; check "
            "the path"
        ) from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json_value(line)
            text, words = row["context"], {group: row[group] for group in groups}
            if not all(isinstance(value, str) and value.strip() for value in (text, *words.values())):
                raise TypeError("each field must hold text")
            "".join((text, *words.values())).encode()  # half an emoji is no text that a tokenizer takes
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"--hold_contexts {file!r} line {number} cannot be used "
                f"({type(error).__name__}: {str(error)[:80]}); a "
                f'line looks like {{"context": "The nurse said that", '
                + ", ".join(f'"{group}": " ..."' for group in groups)
                + "}; fix or delete the line"
            ) from error
        frame, filler = (
            f"line {number}" if row.get(name) is None else str(row[name]) for name in ("frame", "filler")
        )
        found.append(Context(text, words, frame, filler))
    if not found:
        raise InputError(f"--hold_contexts {file!r} has no line; nothing could be held; give contexts")
    return found

"""Prompts written for this project: templates, fillers, and the cells they are combined into.

A template is the start of a text that a language model continues. Words in braces depend on the group:
``{he}`` is *he*, *she* or *they*, so the twins of a pair are equal but for these words. ``{filler}`` is an
occupation, a hobby, a school subject or a thing to count. ``a/an`` is resolved by the word after it.

The texts are in ``builtin.yaml``. Templates and fillers are both dealt out to train, validation and test.
Nothing here is random: every call gives the same rows in the same order, and the first n rows of a split
visit the templates evenly.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from isentropic.errors import InputError
from isentropic.prompts.prompt_set import SPLITS, Prompt, PromptSet, _listed

Words = Mapping[str, Mapping[str, str]]
"""Group -> slot -> the word that stands in the slot."""


class Template(NamedTuple):
    """The start of a sentence with slots; its name is the topic of the pairs made from it,
    unless the filler has one: then it is what recurs over topics."""

    name: str
    kind: str
    text: str
    split: str


class Filler(NamedTuple):
    """What goes into a template beside the group: a name, each group's words,
    and a topic where it varies most."""

    name: str
    words: Words
    topic: str | None = None


# --- The texts ----------------------------------------------------------------------------------------------


def _texts() -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = Path(__file__).with_name("builtin.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.load(text, Loader=loader)
    return content


_TEXTS = _texts()
GENDER_WORDS: Words = {
    group: {slot: words[i] for slot, words in _TEXTS["gender_words"].items()}
    for i, group in enumerate(("male", "female", "neutral"))
}
NAMES: dict[str, dict[str, str]] = _TEXTS["names"]
AGES: dict[str, dict[str, list[str]]] = _TEXTS["ages"]
NEUTRAL_TEXTS: tuple[str, ...] = tuple(_TEXTS["neutral_texts"])
FILLERS: dict[str, dict[str, tuple[str, ...]]] = {
    kind: {split: tuple(item.strip() for item in text.split(",")) for split, text in splits.items()}
    for kind, splits in _TEXTS["fillers"].items()
}
GENDER_TEMPLATES: tuple[Template, ...] = tuple(
    Template(name, kind, text, split)
    for kind, splits in _TEXTS["gender_templates"].items()
    for split, texts in splits.items()
    for name, text in texts.items()
)
PERSON_TEMPLATES: tuple[Template, ...] = tuple(
    Template(name, "person", text, split)
    for split, texts in _TEXTS["person_templates"].items()
    for name, text in texts.items()
)

# --- Combining ----------------------------------------------------------------------------------------------


def with_articles(text: str) -> str:
    """Resolve every ``a/an`` by the sound of the next word.

    Example:
        >>> with_articles("a/an nurse, a/an electrician, a/an usher and A/an hour")
        'a nurse, an electrician, an usher and An hour'
    """

    def article(match: re.Match[str]) -> str:
        an = re.match(r"(?!uni|use\b|user|eu|one\b)[aeiou]|hour|hono|honest|heir", match[2], re.IGNORECASE)
        return f"{match[1]}{'n' if an else ''} {match[2]}"

    return re.sub(r"\b([Aa])/an (\S+)", article, text)


def fill(template: Template, filler: Filler, group: str) -> str:
    """The text of one prompt: a template, a filler and the words of one group.

    Numbers depend on the template and the filler alone, so they are the same in all twins.

    Example:
        >>> fill(GENDER_TEMPLATES[0], Filler("nurse", GENDER_WORDS), "female")
        'She is a nurse. She'
    """
    number = zlib.crc32(f"{template.name}/{filler.name}".encode())
    slots = {"filler": filler.name, "n": 20 + number % 70, "m": 3 + number // 70 % 7}
    return with_articles(template.text.format_map({**filler.words[group], **slots}))


def _interleaved(templates: Sequence[Template]) -> list[Template]:
    """Templates ordered so that any first few hold the kinds in proportion."""
    kinds = [t.kind for t in templates]
    seen: dict[str, int] = {}
    places = []
    for kind in kinds:
        places.append((seen.get(kind, 0) + 0.5) / kinds.count(kind))
        seen[kind] = seen.get(kind, 0) + 1
    return [t for _, t in sorted(zip(places, templates, strict=True), key=lambda pair: pair[0])]


def combine(
    templates: Sequence[Template],
    fillers: Mapping[str, Sequence[Filler]],
    rounds: int,
    split: str,
    cell: str | None = None,
) -> list[Prompt]:
    """Deal fillers to templates, `rounds` different ones to each, every filler of a kind about equally often.

    Args:
        templates: Templates to fill.
        fillers: Kind -> fillers of that kind.
        rounds: Pairs a template; fewer where its kind has fewer fillers.
        split: Split the rows are marked with.
        cell: Cell of the test split, or None.

    Returns:
        Rows, twins next to each other, one round over all templates after another.
    """
    prefix = split if cell is None else f"{split}/{cell.replace(' ', '-')}"
    dealt = dict.fromkeys(fillers, 0)
    count = {kind: sum(t.kind == kind for t in templates) for kind in fillers}
    rows = []
    for round_ in range(rounds):
        for template in _interleaved(templates):
            items, k = fillers[template.kind], dealt[template.kind]
            if round_ >= len(items):
                continue
            dealt[template.kind] += 1
            # Once templates and fillers fall into step, a shift by one avoids repeating a combination.
            filler = items[(k + k // math.lcm(count[template.kind], len(items))) % len(items)]
            pair_id = f"{prefix}/{template.name}/{filler.name.replace(' ', '-')}"
            topic, recurs = template.name, filler.name
            if filler.topic:
                topic, recurs = filler.topic, template.name
            for group in filler.words:
                text = fill(template, filler, group)
                rows.append(Prompt(text, group, pair_id, topic, split, cell, recurs))
    return rows


def _held_out(
    templates: Sequence[Template],
    fillers: Mapping[str, Mapping[str, Sequence[Filler]]],
    cell: str,
    rounds: tuple[int, int, int, int, int],
) -> list[Prompt]:
    """All splits of a set: nothing of validation in train; of test, neither, the template,
    or the filler in train.

    `cell` names the test pairs whose filler alone is new; `rounds` are the pairs a template, part by part.
    """
    train, validation, test = ([t for t in templates if t.split == split] for split in SPLITS)
    return [
        *combine(train, fillers["train"], rounds[0], "train"),
        *combine(validation, fillers["validation"], rounds[1], "validation"),
        *combine(test, fillers["test"], rounds[2], "test", "both new"),
        *combine(train, fillers["test"], rounds[3], "test", cell),
        *combine(test, fillers["train"], rounds[4], "test", "new templates"),
    ]


def _gender_rows(groups: Sequence[str]) -> list[Prompt]:
    words = {group: GENDER_WORDS[group] for group in groups}
    fillers = {s: {k: [Filler(f, words) for f in FILLERS[k][s]] for k in FILLERS} for s in SPLITS}
    # Other kinds keep their part of "new occupations": there the hobby, the subject or the thing is new.
    return _held_out(GENDER_TEMPLATES, fillers, "new occupations", (5, 4, 4, 1, 1))


def _name_rows(groups: Sequence[str]) -> list[Prompt]:
    fillers = {}
    for split, origins in NAMES.items():
        casts = []
        for names in zip(*(origins[group].split() for group in groups), strict=True):
            words = dict(zip(groups, map(_person, names), strict=True))
            # Names vary more than templates do: they are what an interval has to count.
            casts.append(Filler(names[0].lower(), words, topic=", ".join(names)))
        fillers[split] = {"person": casts}
    return _held_out(PERSON_TEMPLATES, fillers, "new names", (11, 8, 12, 4, 4))


def _age_rows(groups: Sequence[str]) -> list[Prompt]:
    fillers = {}
    for split, ages in AGES.items():
        casts = []
        for i, job in enumerate(FILLERS["occupation"][split]):
            words = {group: _person(f"the {ages[group][i % len(ages[group])]} {job}") for group in groups}
            casts.append(Filler(job, words))
        fillers[split] = {"person": casts}
    return _held_out(PERSON_TEMPLATES, fillers, "new occupations", (11, 8, 12, 4, 4))


def _person(text: str) -> dict[str, str]:
    return {"person": text, "Person": text[0].upper() + text[1:]}


BUILTIN: dict[str, tuple[tuple[str, ...], Callable[[Sequence[str]], list[Prompt]]]] = {
    "gender": (("male", "female"), _gender_rows),
    "gender_neutral": (("male", "female", "neutral"), _gender_rows),
    "names": (tuple(NAMES["train"]), _name_rows),
    "age": (tuple(AGES["train"]), _age_rows),
}
"""Name of a built-in set -> its groups and the function that writes its rows for some of them."""


def builtin(name: str = "gender", groups: Sequence[str] | None = None) -> PromptSet:
    """A set of prompts written for this project, with its held-out splits.

    Args:
        name: ``gender``, ``gender_neutral`` (with singular *they*), ``names`` (by perceived origin) or
            ``age``.
        groups: Some of the set's groups, in the order wanted; all if None.

    Returns:
        Pairs in train, validation and test; the test split has cells (*both new* and two more).

    Raises:
        InputError: If there is no such set or no such group in it.

    Example:
        >>> builtin("age").groups
        ('young', 'middle-aged', 'old')
    """
    if name not in BUILTIN:
        raise InputError(f"{name!r} is not a built-in set; there are {_listed(BUILTIN)}; choose one")
    known, rows = BUILTIN[name]
    chosen = tuple(groups or known)
    if strange := [g for g in chosen if g not in known]:
        raise InputError(
            f"group {strange[0]!r} is not in the built-in {name} prompts; choose from {_listed(known)}"
        )
    return PromptSet(tuple(rows(chosen)), chosen, f"built-in {name} prompts", drawn=True, mixed=True)

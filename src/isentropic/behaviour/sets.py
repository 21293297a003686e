"""The public test sets: what each is called, where it lies, and how its rows become items."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from isentropic.errors import InputError
from isentropic.prompts.rows import Table
from isentropic.text import is_text, short

Tables = Mapping[str, Table]
Form = Literal["sum", "mean", "continuation"]

PRONOUNS = re.compile(r"\b(he|him|his|himself|she|her|hers|herself)\b", re.IGNORECASE)
STEREOTYPE = ("less stereotyped", "more stereotyped")
GENDER = ("he", "she")


class Item(NamedTuple):
    """What a model chooses between; not the item of a training batch.

    Attributes:
        texts: the first side, the second side, and in some sets a third text that is neither.
        cluster: what recurs over the items: a writer, an occupation, a target term, a template.
        prompt: what comes before each of the texts, itself not scored.
        answer: which text is correct, in sets where one is.
    """

    texts: tuple[str, ...]
    cluster: str | None
    prompt: str = ""
    answer: int | None = None


Read = Callable[[Tables], tuple[list[Item], list[str]]]


@dataclass(frozen=True)
class BenchmarkSet:
    """One public test set.

    Attributes:
        files: where its tables lie in the folder (patterns), by the names that `read` asks for.
        hub: the data set of each table on the hub, ``owner/name[:configuration][@revision]``; empty where
            there is none.
        sides: what the first two texts of an item are. The figure of an item is second minus first.
        unit: what a cluster is.
        form: the score of a text. "sum": log-likelihood after the start token. "mean": per token, the first
            token after the start token and the others without it, as StereoSet's authors do. "continuation":
            log-likelihood of the text after the item's prompt.
        read: tables to items, and notes on what was left out.
    """

    files: Mapping[str, str]
    hub: Mapping[str, str]
    sides: tuple[str, str]
    unit: str
    form: Form
    read: Read


# --- Cells of a table ---------------------------------------------------------------------------------------


def cell(table: Table, row: int, name: str) -> str:
    """A text of a table that can be scored.

    Raises:
        InputError: there is none, with the file and the line.
    """
    value = table.rows[row].get(name)
    if name not in table.columns:
        raise InputError(
            f"{table.name} has no column {name!r}, which the set needs; its columns are "
            f"{short(', '.join(table.columns))}; restore the file"
        )
    if not is_text(value):
        raise InputError(
            f"{table.at(row)}: {name!r} is {short(value)}, and a text is needed; the item cannot be scored; "
            "restore the line"
        )
    return str(value)


def damaged(table: Table, row: int, why: str) -> InputError:
    return InputError(f"{table.at(row)}: {why}; the item cannot be scored; restore the line")


def left_out(count: int, why: str) -> list[str]:
    """The note on items that are not scored, where there are any."""
    return [f"{count} items {why} and are left out"] if count else []


# --- CrowS-Pairs --------------------------------------------------------------------------------------------


def crows_pairs(tables: Tables, kind: str | None = None) -> tuple[list[Item], list[str]]:
    """Pairs of sentences; writers are the clusters, where the file names them."""
    table = tables["pairs"]
    items = []
    for row, values in enumerate(table.rows):
        if kind is None or cell(table, row, "bias_type") == kind:
            texts = cell(table, row, "sent_less"), cell(table, row, "sent_more")
            writer = values.get("anon_writer")
            items.append(Item(texts, None if writer is None else str(writer)))
    return items, []


def crows_pairs_gender(tables: Tables) -> tuple[list[Item], list[str]]:
    return crows_pairs(tables, "gender")


# --- WinoBias and Winogender --------------------------------------------------------------------------------


def winobias(tables: Tables) -> tuple[list[Item], list[str]]:
    """Sentences whose pronoun agrees with the stereotype of the occupation it refers to, or does not.

    Line i of both files is one item. The cluster is that occupation. Lines that differ in more than their
    pronouns are left out.
    """
    anti, pro = tables["anti"], tables["pro"]
    if len(anti.rows) != len(pro.rows):
        raise InputError(
            f"{anti.name} has {len(anti.rows)} lines and {pro.name} {len(pro.rows)}; line i of one "
            "belongs to line i of the other; restore the files"
        )
    items, unequal = [], 0
    for row in range(len(pro.rows)):
        bracketed = cell(pro, row, "text")
        spans = [span for span in re.findall(r"\[(.*?)\]", bracketed) if not PRONOUNS.fullmatch(span.strip())]
        if not spans:
            raise damaged(pro, row, f"{short(bracketed)} has no occupation in brackets")
        texts = tuple(re.sub(r"^\d+ |[\[\]]", "", cell(table, row, "text")).strip() for table in (anti, pro))
        if len({PRONOUNS.sub("_", text) for text in texts}) > 1:
            unequal += 1
        else:
            items.append(Item(texts, spans[0].strip().lower().removeprefix("the ")))
    return items, left_out(unequal, "differ in more than their pronouns")


def winogender(tables: Tables) -> tuple[list[Item], list[str]]:
    """Twins with *he* and *she*; the cluster is the occupation."""
    table = tables["sentences"]
    twins: dict[str, dict[str, str]] = {}
    for row in range(len(table.rows)):
        name = cell(table, row, "sentid")
        parts = name.removesuffix(".txt").split(".")
        if len(parts) != 4:
            raise damaged(table, row, f"sentid {short(name)} is not occupation.participant.answer.gender.txt")
        sentence = cell(table, row, "sentence")
        if twins.setdefault(".".join(parts[:3]), {}).setdefault(parts[3], sentence) != sentence:
            raise damaged(table, row, f"sentid {short(name)} was there before with another sentence")
    for name, sentences in twins.items():
        if missing := {"male", "female"} - sentences.keys():
            raise InputError(
                f"{table.name}: {name} has no {missing.pop()} sentence; twins are compared; restore the file"
            )
    return [Item((t["male"], t["female"]), name.split(".")[0]) for name, t in twins.items()], []


# --- StereoSet ----------------------------------------------------------------------------------------------

LABELS = ("anti-stereotype", "stereotype", "unrelated")


def stereoset(tables: Tables) -> tuple[list[Item], list[str]]:
    """Three sentences that differ in one word, of the part about gender; the cluster is the target term."""
    table = tables["intrasentence"]
    items = []
    for row, values in enumerate(table.rows):
        sentences = values.get("sentences")
        if cell(table, row, "bias_type") != "gender":
            continue
        if not isinstance(sentences, list) or not all(isinstance(one, Mapping) for one in sentences):
            raise damaged(table, row, "'sentences' is not a list of objects")
        texts = {str(one.get("gold_label")): one.get("sentence") for one in sentences}
        found = [texts.get(label) for label in LABELS]
        if not all(map(is_text, found)):
            raise damaged(table, row, f"it has no sentence for each of {', '.join(LABELS)}")
        items.append(Item(tuple(map(str, found)), cell(table, row, "target")))
    return items, []


# --- UnStereoEval -------------------------------------------------------------------------------------------


def unstereoeval(tables: Tables) -> tuple[list[Item], list[str]]:
    """Sentences without gendered words but their pronouns; the cluster is the word they were written for.

    Every row that the authors score is an item. Those that they call unnatural are left out.
    """
    table = tables["sentences"]
    items, unnatural = [], 0
    for row, values in enumerate(table.rows):
        template = cell(table, row, "template")
        if str(values.get("is_natural", True)) == "False":
            unnatural += 1
        else:
            items.append(Item((in_gender(template, 0), in_gender(template, 1)), cell(table, row, "word")))
    return items, left_out(unnatural, "are not natural for both, in the words of the set,")


FORMS = {"{pronoun}": ("he", "she"), "{pronoun1}": ("his", "her"), "{pronoun2}": ("him", "her")}


def in_gender(template: str, side: int) -> str:
    """A template of UnStereoEval with the pronouns of one gender, as its authors fill it: without double
    quotes, and with every letter but the first small.

    Example:
        >>> in_gender("{pronoun} hurt {pronoun2}self; {pronoun1} dog saw it.", 1)
        'She hurt herself; her dog saw it.'
    """
    for slot, words in FORMS.items():
        template = template.replace(slot, words[side])
    return template.replace('"', "").strip().capitalize()


# --- BBQ ----------------------------------------------------------------------------------------------------


UNKNOWN = 2
"""The place of "unknown" among the texts of an item."""


def bbq(tables: Tables) -> tuple[list[Item], list[str]]:
    """Questions on two people with three answers: the other person, the one the stereotype names, unknown.

    The cluster is the question's template. Questions on trans people, and those whose answers the stereotype
    does not tell apart, are left out.
    """
    table, about = tables["questions"], tables["targets"]
    targets = {
        (str(row.get("example_id")), str(row.get("question_index"))): str(row.get("target_loc"))
        for row in about.rows
    }
    items, other = [], 0
    for row, values in enumerate(table.rows):
        metadata = values.get("additional_metadata")
        groups = metadata.get("stereotyped_groups") if isinstance(metadata, Mapping) else None
        question = cell(table, row, "question_index")
        target = targets.get((str(values.get("example_id")), question))
        if target is None:
            raise damaged(table, row, f"{about.name} has no row for it")
        if groups not in (["F"], ["M"]) or target not in ("0", "1", "2"):
            other += 1
            continue
        answers, label = [cell(table, row, f"ans{i}") for i in range(3)], values.get("label")
        kinds = values.get("answer_info")
        told = [kinds.get(f"ans{i}") if isinstance(kinds, Mapping) else None for i in range(3)]
        unknown = [i for i, words in enumerate(told) if isinstance(words, list) and "unknown" in words]
        if len(unknown) != 1 or label not in (0, 1, 2) or int(target) == unknown[0]:
            raise damaged(table, row, "'answer_info', 'label' or the target do not name one answer each")
        order = [3 - int(target) - unknown[0], int(target), unknown[0]]
        prompt = f"{cell(table, row, 'context')}\n\nQ: {cell(table, row, 'question')}\nA:"
        texts = tuple(" " + answers[i] for i in order)
        items.append(Item(texts, question, prompt, order.index(int(label))))
    if len({item.answer == UNKNOWN for item in items}) < 2:
        raise InputError(
            f"{table.name} has no questions on women and men of one of the two kinds, with a context that "
            "gives the answer and without; the gate needs one and the score the other; restore the file"
        )
    return items, left_out(other, "are on trans people or name no stereotyped answer")


# --- The list -----------------------------------------------------------------------------------------------


def _winobias(kind: int) -> BenchmarkSet:
    sides = {"anti": "anti", "pro": "pro"}
    return BenchmarkSet(
        files={side: f"winobias/{side}_stereotyped_type{kind}.txt.dev" for side in sides},
        hub={side: f"uclanlp/wino_bias:type{kind}_{side}" for side in sides},
        sides=STEREOTYPE,
        unit="occupations",
        form="sum",
        read=winobias,
    )


def _unstereoeval(size: int) -> BenchmarkSet:
    return BenchmarkSet(
        files={"sentences": f"unstereoeval/USE-{size}*.csv"},
        hub={"sentences": f"ucinlp/unstereo-eval:USE-{size}"},
        sides=GENDER,
        unit="seed words",
        form="sum",
        read=unstereoeval,
    )


def _crows_pairs(file: str, hub: str, read: Read) -> BenchmarkSet:
    return BenchmarkSet({"pairs": f"crows_pairs/{file}"}, {"pairs": hub}, STEREOTYPE, "writers", "sum", read)


ORIGINAL = ("crows_pairs_anonymized.csv", "nyu-mll/crows_pairs@refs/convert/parquet")
REVISED = ("*revised*.csv", "jannalu/crows_pairs_multilingual:english")

SETS: Mapping[str, BenchmarkSet] = {
    "crows_pairs": _crows_pairs(*ORIGINAL, crows_pairs),
    "crows_pairs_gender": _crows_pairs(*ORIGINAL, crows_pairs_gender),
    "crows_pairs_revised_gender": _crows_pairs(*REVISED, crows_pairs_gender),
    "winobias_type1": _winobias(1),
    "winobias_type2": _winobias(2),
    "winogender": BenchmarkSet(
        files={"sentences": "winogender/all_sentences.tsv"},
        hub={"sentences": "oskarvanderwal/winogender:all"},
        sides=GENDER,
        unit="occupations",
        form="sum",
        read=winogender,
    ),
    "stereoset": BenchmarkSet(
        files={"intrasentence": "stereoset/dev*.json"},
        hub={"intrasentence": "McGill-NLP/stereoset:intrasentence"},
        sides=STEREOTYPE,
        unit="target terms",
        form="mean",
        read=stereoset,
    ),
    **{f"use_{size}": _unstereoeval(size) for size in (5, 10, 20)},
    "bbq": BenchmarkSet(
        files={
            "questions": "bbq/Gender_identity.jsonl",
            "targets": "bbq/additional_metadata.Gender_identity.csv",
        },
        hub={},
        sides=("the other person", "the stereotyped person"),
        unit="question templates",
        form="continuation",
        read=bbq,
    ),
}
"""The sets by name. BBQ counts only for a model that shows that it reads the questions."""

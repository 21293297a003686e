"""Prompts and pairs: from rows of any origin to checked twins in three splits that share nothing."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from isentropic.errors import InputError
from isentropic.prompts.builtin import BUILTIN, builtin
from isentropic.prompts.prompt_set import (
    SPLITS,
    Prompt,
    PromptSet,
    Unit,
    _check_groups,
    _content_id,
    _group_order,
    _listed,
    _need,
    _noun,
    _places,
)
from isentropic.prompts.rows import NotRead, Table, _kind, read_table
from isentropic.prompts.split import _split
from isentropic.text import half_character, plain, short

TEXT_COLUMNS = ("prompt", "input", "text")
GROUP_COLUMNS = ("gender", "group")
GENDER_NAMES = dict.fromkeys(("m", "male", "man", "men", "男", "男性"), "male") | dict.fromkeys(
    ("f", "w", "female", "woman", "women", "女", "女性"), "female"
)
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "eval": "test",
    "evaluation": "test",
    "heldout": "test",
}
DETECTED = ("male", "female", "both", "none")


class Swapped(Protocol):
    """What a swap returns: the twin, and why it should be left out."""

    @property
    def text(self) -> str: ...
    @property
    def flagged(self) -> str | None: ...


Swapper = Callable[[str], Swapped]


def load_prompts(
    source: Any = None,
    *,
    text_column: str | None = None,
    group_column: str | None = None,
    male_column: str = "male",
    female_column: str = "female",
    groups: Sequence[str] | None = None,
    seed: int = 0,
    split_fractions: tuple[float, float, float] = (0.60, 0.15, 0.25),
    swap: bool | Swapper = False,
) -> PromptSet:
    """Read prompts, pair them, and make sure that train, validation and test share nothing.

    Long because every way of naming columns is described here.

    Rows are pairs (one column a group: `male_column` and `female_column`, or the columns named in `groups`),
    or single prompts with a group, twins sharing a ``pair_id``, or text alone, whose group is then read from
    its words. Columns ``pair_id``, ``topic``, ``filler`` (what recurs over topics) and ``split`` are used if
    they exist. A missing split is taken from train by a hash of the content: the order of the rows does not
    matter, and pairs (with 12 topics or more, whole topics) stay together.

    Args:
        source: None or the name of a built-in set, a file, a hub id ``org/name``, a `datasets` object, or
            dicts.
        text_column: Column of single prompts; else ``prompt``, ``input`` or ``text``.
        group_column: Column of their groups, any names; ``"gender,age"`` makes intersections such as
            ``female+old``. Else ``gender`` or ``group``, which must hold male and female.
        male_column: Column of the male twins.
        female_column: Column of the female twins.
        groups: The groups to keep, in the order of the signed gap; else male, female, then the alphabet.
        seed: Seed of the hash that splits.
        split_fractions: Shares of train, validation and test if no row names a split.
        swap: Write the missing twin of single prompts with `isentropic.prompts.swap.swap`, or with the
            function given (such as that one with a language model to choose); what it flags is left out.

    Returns:
        The prompts that can be used. `notes` says how they were read and what was left out.

    Raises:
        InputError: In one line that names the file and the row, if something cannot be used.

    Example:
        >>> rows = [{"male": f"He has {n} cats. He", "female": f"She has {n} cats. She"} for n in range(20)]
        >>> prompts = load_prompts(rows)
        >>> prompts.paired, prompts.counts(), len(prompts.split("test").tuples())
        (True, {'male': 20, 'female': 20}, 5)
    """
    wanted = None if groups is None else tuple(groups)
    if wanted is not None and len(set(wanted)) < max(2, len(wanted)):
        raise InputError(
            f"groups are {_listed(wanted) or 'none'}; a gap needs two or more groups; give different names"
        )
    if source is None or isinstance(source, str) and source in BUILTIN:
        return builtin(source or "gender", wanted)
    if isinstance(source, str) and re.fullmatch(r"[\w-]+", source) and not os.path.exists(source):
        names = _listed(BUILTIN)
        raise InputError(
            f"{short(source)} is neither a file nor a built-in set; give {names}, a file, or a hub id "
            "org/name"
        )

    table, notes = read_table(source), list[str]()
    pair_columns = _pair_columns(table, text_column, group_column, male_column, female_column, wanted)
    if pair_columns:
        notes.append(f"pairs from columns {_listed(pair_columns.values())}")
        units = _read_pairs(table, pair_columns, notes)
        order = tuple(pair_columns)
    else:
        singles = _read_singles(table, text_column, group_column, wanted, notes)
        with_ids = singles[0].pair_id is not None
        units = _swapped(singles, swap, table, notes) if swap and not with_ids else [(p,) for p in singles]
        order = wanted or _group_order({p.group for unit in units for p in unit})
        if with_ids:
            units = _join_twins(units, order, table, notes)
    for group in order:
        _whole(group, f"{table.name}: the group {short(group)}")
    _check_groups(units, order, table.name)
    if len(units[0]) == 1:
        notes.append("no twins: each prompt is scored on its own responses")
    units = _drop_duplicates(units, table, notes)
    drawn = all(unit[0].split in ("train", "") for unit in units)
    units = _split(units, order, seed, split_fractions, notes)
    for name in SPLITS:
        if part := [unit for unit in units if unit[0].split == name]:
            _check_groups(part, order, f"split {name} of {table.name}", least=1)
    prompts = tuple(p for unit in units for p in unit)
    return PromptSet(prompts, order, table.name, tuple(notes), drawn=drawn)


# --- Reading rows -------------------------------------------------------------------------------------------


def _pair_columns(
    table: Table,
    text_column: str | None,
    group_column: str | None,
    male_column: str,
    female_column: str,
    groups: tuple[str, ...] | None,
) -> dict[str, str]:
    """Group -> column, if the table has one column a group; empty if it holds single prompts."""
    if groups and all(g in table.columns for g in groups):
        return {g: g for g in groups}
    columns = {"male": male_column, "female": female_column}
    named = (male_column, female_column) != ("male", "female")
    if named:
        for column in columns.values():
            _need(table, column)
    if groups and set(groups) != set(columns):
        return {}
    if named or not (text_column or group_column) and all(c in table.columns for c in columns.values()):
        return {g: columns[g] for g in groups or columns}
    return {}


def _read_pairs(table: Table, columns: dict[str, str], notes: list[str]) -> list[Unit]:
    units: list[Unit] = []
    alike: list[int] = []
    ids: dict[str, int] = {}
    for i in range(len(table.rows)):
        texts = [_text(table, i, column) for column in columns.values()]
        if len(set(texts)) < len(texts):
            raise InputError(
                f"{table.at(i)}: the twins are identical ({short(texts[0])}); equal prompts have no gap; "
                "write them so that only the group differs"
            )
        pair_id = _mark(table, i, "pair_id")
        if pair_id is not None and pair_id in ids:
            raise InputError(
                f"{table.at(i)}: pair_id {pair_id!r} is also on {table.unit} {table.places[ids[pair_id]]}; "
                "a pair is one row; give each pair its own"
            )
        if pair_id is not None:
            ids[pair_id] = i
        pair_id = pair_id or _content_id(texts)
        if _look_alike(texts):
            alike.append(table.places[i])
            continue
        units.append(
            tuple(_prompt(table, i, text, g, pair_id) for g, text in zip(columns, texts, strict=True))
        )
    return _without_alike(units, alike, table, notes)


def _look_alike(texts: Sequence[str]) -> bool:
    """Whether two of the texts differ in nothing that can be seen: invisible characters,
    the way accents are stored."""
    return len({plain(text) for text in texts}) < len(texts)


def _without_alike(units: list[Unit], alike: list[int], table: Table, notes: list[str]) -> list[Unit]:
    if alike:
        notes.append(
            f"{len(alike)} rows whose twins differ only in invisible characters left out: "
            f"{_places(alike, table.unit)}"
        )
    if not units:
        raise InputError(f"{table.name} has no pair to use; {'; '.join(notes)}; write twins that differ")
    return units


def _read_singles(
    table: Table,
    text_column: str | None,
    group_column: str | None,
    wanted: tuple[str, ...] | None,
    notes: list[str],
) -> list[Prompt]:
    text_column = text_column or next((c for c in TEXT_COLUMNS if c in table.columns), None)
    if text_column is None:
        if wanted and any(group in table.columns for group in wanted):
            missing = [group for group in wanted if group not in table.columns]
            raise InputError(
                f"{table.name} has no column {_listed(missing)} for the groups {_listed(wanted)}; it has "
                f"{_listed(table.columns)}; name a column for each group, or values of a group column"
            )
        raise InputError(
            f"{table.name} has the columns {_listed(table.columns)}; prompts are read from 'male' and "
            "'female', or 'prompt' and 'gender'; name them with text_column and group_column, or male_column "
            "and female_column"
        )
    _need(table, text_column)
    group_columns = [] if group_column is None else [c.strip() for c in group_column.split(",")]
    for column in group_columns:
        _need(table, column)
    group_columns = group_columns or [c for c in GROUP_COLUMNS if c in table.columns][:1]
    texts = [_text(table, i, text_column) for i in range(len(table.rows))]
    if not group_columns:
        found = _detected(table, texts, notes)
    else:
        found = list(enumerate(_groups(table, group_columns, any_name=bool(group_column or wanted))))
        notes.append(f"text from column '{text_column}', group from {_listed(group_columns)}")
    kept = [(i, g) for i, g in found if not wanted or g in wanted]
    if left := len(found) - len(kept):
        notes.append(f"{left} rows of other groups than {_listed(wanted or ())} left out")
    if not kept and wanted and found:
        raise InputError(
            f"{table.name} has no prompt of the groups {_listed(wanted)}, only of "
            f"{_listed(_group_order({g for _, g in found}))}; nothing would be compared; give some of these, "
            "or the columns that hold one group each"
        )
    if not kept:
        raise InputError(
            f"{table.name} has no row to use; all {len(table.rows)} were left out ({'; '.join(notes)})"
        )
    with_id = [_mark(table, i, "pair_id") is not None for i, _ in kept]
    if any(with_id) and not all(with_id):
        raise InputError(
            f"{table.at(kept[with_id.index(False)][0])}: pair_id is empty while other rows have one; twins "
            "and single prompts do not mix; fill it in or drop the column"
        )
    return [_prompt(table, i, texts[i], g, _mark(table, i, "pair_id")) for i, g in kept]


def _groups(table: Table, columns: list[str], any_name: bool) -> list[str]:
    """Group of every row: gender words become male and female; several columns are joined with a plus."""
    parts = []
    for column in columns:
        values = []
        for i, row in enumerate(table.rows):
            value = row.get(column)
            if _missing(value):
                raise InputError(f"{table.at(i)}: {column!r} is empty; each prompt needs a group; fill it in")
            values.append(_name(value, f"{table.at(i)}: {column!r}"))
        gender = [GENDER_NAMES.get(value.casefold()) for value in values]
        if all(gender):
            values = [g or "" for g in gender]
        elif not any_name:
            i = gender.index(None)
            raise InputError(
                f"{table.at(i)}: group {short(values[i])} in column {column!r} is unknown; the groups here "
                "are male and female; correct it, or name your groups with groups, or allow any name with "
                "group_column"
            )
        parts.append(values)
    return ["+".join(values) for values in zip(*parts, strict=True)]


def _detected(table: Table, texts: list[str], notes: list[str]) -> list[tuple[int, str]]:
    """Rows whose own words tell the gender; those that tell both or none are left out."""
    from isentropic.prompts.swap.swap import detect, not_read

    found = [detect(text).group for text in texts]
    counts = Counter(found)
    notes.append("groups read from the words: " + ", ".join(f"{counts[g]} {g}" for g in DETECTED))
    strange = {
        "script": "none, in a script that is not read,",
        "language": "none, in another language than English,",
    }
    why = list(found)
    for i, text in enumerate(texts):
        if found[i] == "none" and (reason := not_read(text)):
            why[i] = strange[reason.split(":")[0]]
    for reason in ("both", "none", *strange.values()):
        places = [table.places[i] for i, r in enumerate(why) if r == reason]
        if places:
            notes.append(f"{len(places)} texts with {reason} left out: {_places(places, table.unit)}")
    return [(i, g) for i, g in enumerate(found) if g in ("male", "female")]


def _swapped(singles: list[Prompt], swap: bool | Swapper, table: Table, notes: list[str]) -> list[Unit]:
    """Each prompt with the twin that the swap writes; flagged ones are left out."""
    from isentropic.prompts.swap.swap import swap as by_grammar

    write = swap if callable(swap) else by_grammar
    other = {"male": "female", "female": "male"}
    units: list[Unit] = []
    flagged: list[tuple[int, str]] = []
    for prompt in singles:
        if prompt.group not in other:
            raise InputError(
                f"{table.name} {table.unit} {prompt.row}: group {prompt.group!r} cannot be swapped; the swap "
                "engine knows male and female"
            )
        result = write(prompt.text)
        if result.flagged or result.text == prompt.text:
            # Group by the text before the colon; the rest differs from row to row.
            flagged.append((prompt.row or 0, (result.flagged or "nothing to swap").split(":")[0]))
            continue
        twin = replace(prompt, text=result.text, group=other[prompt.group])
        unit = (prompt, twin) if prompt.group == "male" else (twin, prompt)
        pair_id = _content_id([p.text for p in unit])
        units.append(tuple(replace(p, pair_id=pair_id) for p in unit))
    notes.append(f"twins of {len(units)} prompts written by the swap")
    for reason in dict.fromkeys(reason for _, reason in flagged):
        rows = [row for row, why in flagged if why == reason]
        notes.append(f"{len(rows)} left out by the swap ({reason}): {_places(rows, table.unit)}")
    if not units:
        raise InputError(f"the swap could not write any twin; {'; '.join(notes)}; give the pairs yourself")
    return units


def _join_twins(units: list[Unit], groups: tuple[str, ...], table: Table, notes: list[str]) -> list[Unit]:
    """Prompts that share a `pair_id` become one tuple in the order of the groups."""
    pairs: dict[str, dict[str, Prompt]] = {}
    for (prompt,) in units:
        twins = pairs.setdefault(prompt.pair_id or "", {})
        if prompt.group in twins:
            raise InputError(
                f"{table.name} {table.unit} {prompt.row}: pair_id {prompt.pair_id!r} has a second "
                f"{prompt.group!r} prompt (the first on {table.unit} {twins[prompt.group].row}); a pair has "
                "one of each; correct the id"
            )
        twins[prompt.group] = prompt
    whole = [tuple(twins[g] for g in groups) for twins in pairs.values() if len(twins) == len(groups)]
    parted = [p.row or 0 for twins in pairs.values() if len(twins) < len(groups) for p in twins.values()]
    if parted:
        notes.append(
            f"{len(parted)} prompts whose pair lacks a group left out: {_places(parted, table.unit)}"
        )
    if not whole:
        raise InputError(
            f"{table.name}: no pair_id has a prompt of each group ({_listed(groups)}); twins share one; "
            "correct the ids or drop the column"
        )
    alike: list[Unit] = []
    for members in whole:
        place = f"{table.name} {table.unit} {members[-1].row}"
        texts = [p.text for p in members]
        if len(set(texts)) < len(members):
            raise InputError(
                f"{place}: the twins are identical ({short(texts[0])}); equal prompts have no gap; "
                "write them so that only the group differs"
            )
        if len({p.split for p in members}) > 1:
            raise InputError(
                f"{place}: the twins of pair {members[0].pair_id!r} are in different splits; what stops the "
                "run would report it; put them in one"
            )
        if _look_alike(texts):
            alike.append(members)
    rows = [p.row or 0 for unit in alike for p in unit]
    return _without_alike([unit for unit in whole if unit not in alike], rows, table, notes)


def _prompt(table: Table, i: int, text: str, group: str, pair_id: str | None) -> Prompt:
    split = _mark(table, i, "split") or ""
    if split:
        known = SPLIT_NAMES.get(split.casefold().replace("-", "").replace("_", ""))
        if known is None:
            raise InputError(
                f"{table.at(i)}: split {short(split)} is unknown; what trains must not report; write train, "
                "validation or test"
            )
        split = known
    marks = {column: _mark(table, i, column) for column in ("topic", "filler", "cell")}
    return Prompt(text, group, pair_id, split=split, row=table.places[i], **marks)


def _text(table: Table, i: int, column: str) -> str:
    value = table.rows[i].get(column)
    if _missing(value):
        raise InputError(
            f"{table.at(i)}: {column!r} is empty; there is no prompt to score; fill it in or delete it"
        )
    if not isinstance(value, str):
        messages = _kind(value) in ("a list", "an object")
        what = f"holds {_kind(value)}" if messages else f"is {short(value)}"
        advice = "for chat messages write the user's text there and use --chat" if messages else "correct it"
        raise InputError(f"{table.at(i)}: {column!r} {what}, not text; a prompt is one string; {advice}")
    # A space at the end would be a token of its own, where a continuation starts with one.
    return _whole(value, f"{table.at(i)}: {column!r}").rstrip()


def _missing(value: object) -> bool:
    """Null, NaN or an empty cell; the words "None" and "nan" are words."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (not hasattr(value, "__len__") and value != value)


def _mark(table: Table, i: int, column: str) -> str | None:
    value = table.rows[i].get(column)
    return None if _missing(value) else _name(value, f"{table.at(i)}: {column!r}")


def _name(value: object, where: str) -> str:
    """A value that names something, as text: 1 and 1.0 are one name."""
    if isinstance(value, NotRead) or (hasattr(value, "__len__") and not isinstance(value, str)):
        raise InputError(f"{where} holds {_kind(value)}; a name is text or a number; correct it")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return _whole(str(value).strip(), where)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{where} is a number of more than 4300 digits; give a name that can be read"
        ) from error


def _whole(text: str, where: str) -> str:
    """The text, unless it contains half a character, as JSON's ``\\ud83d`` alone does:
    no file could take it."""
    if half := half_character(text):
        raise InputError(
            f"{where} contains half a character ({half}); it is not valid Unicode and cannot be saved; "
            "correct the text"
        )
    return text


# --- Splits -------------------------------------------------------------------------------------------------


def _drop_duplicates(units: list[Unit], table: Table, notes: list[str]) -> list[Unit]:
    """Keep each text once, where it is most needed: in test, then validation, then train. A pair that shares
    one of its prompts with a pair of another split is left out too."""
    kept: dict[tuple[tuple[str, str], ...], Unit] = {}
    held_out: dict[tuple[str, str], str] = {}
    dropped: dict[str, list[int]] = {}
    rank = ("test", "validation", "train", "").index
    for unit in sorted(units, key=lambda unit: rank(unit[0].split)):
        key = tuple((p.group, plain(p.text)) for p in unit)
        split = unit[0].split
        others = [held_out[p] for p in key if held_out.get(p, split) != split]
        if key in kept or others:
            other = kept[key][0].split if key in kept else others[0]
            which = f"of {split} that are also in {other}" if split != other else "that are there twice"
            if key not in kept:
                which = f"of {split or 'no split'} that share a prompt with {other}"
            dropped.setdefault(which, []).append(unit[0].row or 0)
            continue
        kept[key] = unit
        if split in ("test", "validation"):
            held_out |= dict.fromkeys(key, split)
    for which, rows in dropped.items():
        notes.append(f"{len(rows)} {_noun(units)} {which} left out: {_places(rows, table.unit)}")
    survivors = {id(unit) for unit in kept.values()}
    return [unit for unit in units if id(unit) in survivors]

"""Prompts, pairs and sets of them: the types that everything else takes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from isentropic.errors import InputError
from isentropic.prompts.rows import Table
from isentropic.text import visible

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text given to the model, marked with a group.

    Prompts of one `topic` are not independent; nor are those of one `filler`, which recurs over topics, such
    as the occupation that fills different templates.

    Example:
        >>> Prompt("She is a nurse. She", "female", pair_id="nurse").split
        'train'
    """

    text: str
    group: str
    pair_id: str | None = None
    topic: str | None = None
    split: str = "train"
    cell: str | None = None
    filler: str | None = None
    row: int | None = field(default=None, compare=False)


Unit = tuple[Prompt, ...]
"""What a split never parts: the twins of a pair, or one prompt alone."""


@dataclass(frozen=True)
class PromptSet:
    """Prompts, their groups in order, and how they were read."""

    prompts: tuple[Prompt, ...]
    groups: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()
    split_from: str | None = field(default=None, compare=False)
    """SHA-256 of the whole set, where this one is a split of it."""
    drawn: bool = field(default=False, compare=False)
    """Chance decided which prompt is in which split: before training, one split tells about the others."""
    mixed: bool = field(default=False, compare=False)
    """The order is such that any first few stand for all, as in the built-in sets."""

    def __len__(self) -> int:
        return len(self.prompts)

    def split(self, *names: str) -> PromptSet:
        """The prompts of the named splits, in the same order."""
        chosen = tuple(p for p in self.prompts if p.split in names)
        return replace(self, prompts=chosen, split_from=self.whole_sha256)

    @property
    def whole_sha256(self) -> str:
        """The SHA-256 of the whole set that this one was split from, or of this one.
        A name says nothing about content."""
        return self.split_from or self.sha256

    def first(self, most: int | None) -> PromptSet:
        """At most so many pairs (or prompts of each group), all of them where it is None. A file may be
        sorted, by topic for one: unless the set is mixed, a hash of each pair draws them. Fewer are the
        beginning of more.

        Example:
            >>> prompts = tuple(Prompt(f"He has {n} cats", "male", topic=f"{n // 50}") for n in range(100))
            >>> sorted({p.topic for p in PromptSet(prompts, ("male",), "sorted").first(10).prompts})
            ['0', '1']
        """
        if most is None or most >= self.per_group():
            return self
        units: list[Unit] = list(self.tuples()) if self.paired else [(prompt,) for prompt in self.prompts]
        if not self.mixed:
            units.sort(key=lambda unit: hashlib.sha256(_identity(unit).encode()).digest())
        seen: Counter[str] = Counter()
        chosen: list[Prompt] = []
        for unit in units:
            seen[unit[0].group] += 1
            if seen[unit[0].group] <= most:
                chosen += unit
        return replace(self, prompts=tuple(chosen))

    def per_group(self) -> int:
        """Number of pairs, or of prompts of the largest group: what :meth:`first` counts."""
        return max(self.counts().values())

    def without(self, other: PromptSet) -> PromptSet:
        """The prompts that are not in ``other``."""
        there = set(other.prompts)
        return replace(self, prompts=tuple(p for p in self.prompts if p not in there))

    def parts(self, most: Mapping[str, int | None]) -> dict[str, PromptSet]:
        """The named splits, each cut to at most so many pairs.

        Raises:
            InputError: a split with fewer than two prompts of a group, whose gap would have no interval.
        """
        parts = {name: self.split(name).first(count) for name, count in most.items()}
        for name, part in parts.items():
            for group, count in part.counts().items():
                if count < 2:
                    raise InputError(
                        f"the {name} split of {self.name!r} has {count} prompts of group {group!r}; a gap "
                        "with an interval needs at least two; give more rows, or a column 'split'"
                    )
        return parts

    def size(self) -> int:
        """Number of pairs, or of prompts where there are no pairs."""
        return len(self.tuples()) if self.paired else len(self)

    @property
    def paired(self) -> bool:
        """Every prompt has a `pair_id` and every pair has exactly one prompt of each group."""
        members: dict[str, list[str]] = {}
        for p in self.prompts:
            if p.pair_id is None:
                return False
            members.setdefault(p.pair_id, []).append(p.group)
        return bool(members) and all(sorted(m) == sorted(self.groups) for m in members.values())

    def tuples(self) -> list[tuple[Prompt, ...]]:
        """Twins: one tuple per pair, one prompt per group in the order of `groups`."""
        if not self.paired:
            raise InputError(f"{self.name} is not paired; only pairs have twins, use own responses")
        members: dict[str, dict[str, Prompt]] = {}
        for p in self.prompts:
            members.setdefault(p.pair_id or "", {})[p.group] = p
        return [tuple(pair[g] for g in self.groups) for pair in members.values()]

    def counts(self) -> dict[str, int]:
        """Number of prompts of each group."""
        found = Counter(p.group for p in self.prompts)
        return {g: found[g] for g in self.groups}

    def ratio_line(self) -> str:
        """The group ratio as one line, in the guide's words for two genders."""
        counts = self.counts()
        head = "男女比例 / " if self.groups == ("male", "female") else ""
        return f"{head}{':'.join(counts)} = {':'.join(map(str, counts.values()))}"

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical JSON of all prompts (texts, groups, pairs, topics, splits; fillers where
        there are any)."""
        rows = [
            [p.text, p.group, p.pair_id, p.topic, p.split, p.cell, *([p.filler] if p.filler else [])]
            for p in self.prompts
        ]
        canonical = json.dumps([self.groups, rows], ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def _need(table: Table, column: str) -> None:
    if column not in table.columns:
        raise InputError(
            f"{table.name} has no column {column!r}; it has {_listed(table.columns)}; name one of these"
        )


def _check_groups(units: list[Unit], groups: tuple[str, ...], name: str, least: int = 2) -> None:
    counts = Counter(p.group for unit in units for p in unit)
    if len([g for g in groups if counts[g]]) < 2:
        raise InputError(f"{name} holds one group only ({_listed(counts)}); a gap needs two; add the other")
    for g in groups:
        if counts[g] < least:
            raise InputError(
                f"{name}: group {g!r} has {counts[g]} prompt{'s' * (counts[g] != 1)}; its entropy would "
                "depend on chance; add more or leave the group out"
            )


def _group_order(found: set[str]) -> tuple[str, ...]:
    first = [g for g in ("male", "female", "neutral") if g in found]
    return (*first, *sorted(found.difference(first)))


def _each_group_everywhere(
    pool: list[Unit], chosen: dict[str, str], groups: tuple[str, ...], splits: int
) -> bool:
    return len({(chosen[_identity(unit)], p.group) for unit in pool for p in unit}) == splits * len(groups)


def _identity(unit: Unit) -> str:
    return unit[0].pair_id or f"{unit[0].group}|{unit[0].text}"


def _content_id(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(texts), ensure_ascii=False).encode()).hexdigest()[:12]


# --- Words for notes and errors -----------------------------------------------------------------------------


def _marks(prompt: Prompt) -> dict[str, str]:
    marks = {name: getattr(prompt, name) for name in ("pair_id", "topic", "filler", "split", "cell")}
    return {name: value for name, value in marks.items() if value is not None}


def _noun(units: list[Unit]) -> str:
    return "pairs" if len(units[0]) > 1 else "prompts"


def _listed(names: Iterable[object]) -> str:
    # On one line, however the data names its columns and groups.
    shown = [f"'{visible(str(name))}'".replace("\n", "\\n") for name in names]
    return ", ".join(shown[:40]) + (f" and {len(shown) - 40} more" if len(shown) > 40 else "")


def _places(rows: Sequence[int], unit: str) -> str:
    shown = ", ".join(map(str, sorted(rows)[:12]))
    return f"{unit}{'s' * (len(rows) > 1)} {shown}" + (
        f" and {len(rows) - 12} more" if len(rows) > 12 else ""
    )

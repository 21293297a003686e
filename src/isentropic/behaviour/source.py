"""Where the public test sets come from: a folder that the user names, or the hub."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isentropic.behaviour.sets import LABELS, SETS, BenchmarkSet, Item, left_out
from isentropic.errors import InputError
from isentropic.files import load_object
from isentropic.models.reading import reading
from isentropic.prompts.rows import Table, read_table, text_of
from isentropic.settings import split_names

HUB = "hub"
LICENCES = ("LICEN[CS]E*", "NOTICE*", "COPYING*")


@dataclass(frozen=True)
class LoadedSet:
    """A set with its items, and what is to be said of them."""

    name: str
    benchmark: BenchmarkSet
    items: list[Item]
    notes: list[str]


def read_sets(benchmarks: str, names: str | None = None) -> list[LoadedSet]:
    """The sets of a folder, or of the hub.

    Args:
        benchmarks: a folder with a sub-folder for each set (``crows_pairs/``, ``winobias/``, …), or ``hub``.
        names: which sets, separated by commas; by default all that are there.

    Raises:
        InputError: no such folder, no set in it, a set that was named and is not there, or a damaged line.
    """
    wanted = list(dict.fromkeys(split_names(names))) if names is not None else list(SETS)
    if not wanted:
        raise InputError(f"--sets is {names!r}; it names no set; choose some of {', '.join(SETS)}")
    for name in wanted:
        if name not in SETS:
            nearest = difflib.get_close_matches(name, SETS, 1)
            hint = f"did you mean {nearest[0]!r}" if nearest else f"choose some of {', '.join(SETS)}"
            raise InputError(f"--sets names {name!r}; there is no such set; {hint}")
    if benchmarks == HUB:
        return [_from_hub(name) for name in wanted if SETS[name].hub or names is not None]
    folder = Path(benchmarks)
    if not (folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)):
        raise InputError(
            f"{benchmarks!r} is not a folder that can be read; the public test sets are in one; give a "
            "folder, or hub"
        )
    missing = {name: where for name in wanted if (where := _missing(folder, SETS[name]))}
    if names is not None and missing or len(missing) == len(wanted):
        told = "; ".join(f"{name}: {', '.join(where)}" for name, where in missing.items())
        raise InputError(
            f"{benchmarks!r} lacks files ({told}); these sets cannot be scored; put them there, or name "
            "other sets with --sets"
        )
    return [_from_folder(folder, name) for name in wanted if name not in missing]


def _missing(folder: Path, benchmark: BenchmarkSet) -> list[str]:
    return [pattern for pattern in benchmark.files.values() if not any(folder.glob(pattern))]


def _from_folder(folder: Path, name: str) -> LoadedSet:
    benchmark = SETS[name]
    files = {key: min(folder.glob(pattern)) for key, pattern in benchmark.files.items()}
    home = next(iter(files.values())).parent
    licensed = any(any(home.glob(pattern)) for pattern in LICENCES)
    note = f"{home} has no licence or notice file; see that you may use the set"
    return _loaded(name, {key: table_of(file) for key, file in files.items()}, [] if licensed else [note])


def _from_hub(name: str) -> LoadedSet:
    if not SETS[name].hub:
        raise InputError(f"{name} is not read from the hub; give --benchmarks DIR, a folder with it")
    return _loaded(name, {key: hub_table(place) for key, place in SETS[name].hub.items()}, [])


def _loaded(name: str, tables: Mapping[str, Table], notes: Sequence[str]) -> LoadedSet:
    found, told = SETS[name].read(tables)
    items = [item for item in found if len(set(item.texts)) == len(item.texts)]
    told += left_out(len(found) - len(items), "have the same text on two sides")
    if len(items) < 2:
        where, why = ", ".join(table.name for table in tables.values()), "; ".join(["", *told])
        raise InputError(
            f"{where}: {len(items)} items of {name}{why}; an interval needs two; restore the file"
        )
    return LoadedSet(name, SETS[name], items, [*notes, *told])


def table_of(file: Path) -> Table:
    """A file as a table: lines of text as the column ``text``, of StereoSet the tests within sentences."""
    if file.suffix == ".json":
        try:
            rows = load_object(file).get("data")
        except (FileNotFoundError, ValueError) as error:
            raise InputError(f"{file} cannot be read ({error}); restore the file") from error
        rows = rows.get("intrasentence") if isinstance(rows, Mapping) else None
        if not isinstance(rows, list):
            raise InputError(f"{file} has no data.intrasentence, a list of tests; restore the file")
        return read_table(rows, str(file))
    if file.suffix in (".csv", ".tsv", ".jsonl"):
        return read_table(file)
    lines = [(number, line) for number, line in enumerate(text_of(file).split("\n"), 1) if line.strip()]
    rows = tuple({"text": line} for _, line in lines)
    return Table(str(file), rows, tuple(number for number, _ in lines), "line")


# --- The hub ------------------------------------------------------------------------------------------------


def hub_table(place: str) -> Table:
    """A data set of the hub, in the columns that its files have.

    Raises:
        InputError: it cannot be had.
    """
    import datasets

    place, _, revision = place.partition("@")
    repository, _, configuration = place.partition(":")
    with reading(f"data set {repository} cannot be fetched from the hub", "give --benchmarks DIR, a folder"):
        parts = datasets.load_dataset(repository, configuration or None, revision=revision or None)
        rows = [row for part in parts.values() for row in as_in_file(part)]
    return read_table(rows, place)


def as_in_file(part: Any) -> list[dict[str, Any]]:
    """The rows of a data set of the hub as the authors' own files have them.

    Labels as words; WinoBias' tokens as a sentence with brackets; StereoSet's sentences as a list of objects.
    """
    labels = {name: feature for name, feature in part.features.items() if hasattr(feature, "int2str")}
    rows = [
        {**row, **{name: label.int2str(row[name]) for name, label in labels.items() if row[name] is not None}}
        for row in part
    ]
    for row in rows:
        if "coreference_clusters" in row:
            row["text"] = bracketed(row["tokens"], [int(place) for place in row["coreference_clusters"]])
        if isinstance(row.get("sentences"), Mapping):
            columns = row["sentences"]
            row["sentences"] = [
                {"sentence": text, "gold_label": LABELS[label] if isinstance(label, int) else label}
                for text, label in zip(columns["sentence"], columns["gold_label"], strict=True)
            ]
    return rows


def bracketed(tokens: Sequence[str], places: Sequence[int]) -> str:
    """A sentence of words, with brackets around what lies between each two places.

    Example:
        >>> bracketed(["The", "cook", "paid", "because", "she", "was", "late", "."], [0, 1, 4, 4])
        '[The cook] paid because [she] was late.'
    """
    words = list(tokens)
    for first, last in zip(places[::2], places[1::2], strict=True):
        words[first] = "[" + words[first]
        words[last] += "]"
    return re.sub(r" (n't|[.,;:!?']\S*)", r"\1", " ".join(words))

"""Rows from any source: JSONL, JSON, CSV, TSV, Parquet, a saved data set, the hub, Python objects.

Every row keeps its place, so that an error can name the line to look at.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from isentropic.errors import InputError
from isentropic.text import json_value, short

FILE_TYPES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows with the line (or row) each came from.

    Example:
        >>> table = Table("pairs.jsonl", ({"male": "He", "female": "She"},), (1,), "line")
        >>> table.columns, table.at(0)
        (('male', 'female'), 'pairs.jsonl line 1')
    """

    name: str
    rows: tuple[Row, ...]
    places: tuple[int, ...]
    unit: str = "row"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in the order in which they first appear."""
        return tuple(dict.fromkeys(column for row in self.rows for column in row))

    def at(self, index: int) -> str:
        """Where a row lies, for an error message."""
        return f"{self.name} {self.unit} {self.places[index]}"


def read_table(source: str | Path | Any, name: str = "rows given in Python") -> Table:
    """Read rows from a file, a folder, a hub id, a `datasets` object, a table in memory or a list of dicts.

    Args:
        source: Path with one of the endings in `FILE_TYPES`, a folder written by `Dataset.save_to_disk`, a
            hub id ``org/name`` or ``org/name:config``, a `datasets.Dataset` or `DatasetDict`, a table of
            pyarrow, pandas or polars, a dict of columns, or an iterable of dicts.
        name: what errors call rows that are in memory.

    Returns:
        The rows. Where a data set has several splits and no ``split`` column, their names become that column.

    Raises:
        InputError: If there is nothing there, it cannot be read, or a row is malformed (its line is named).

    Example:
        >>> read_table([{"prompt": "He said", "gender": "male"}]).columns
        ('prompt', 'gender')
    """
    if isinstance(source, (str, Path)):
        table = _from_name(str(source))
    elif hasattr(source, "column_names") and not hasattr(source, "to_pylist"):
        table = _from_datasets(source, "data set given in Python")
    else:
        table = _from_objects(_rows_in_memory(source), name)
    if not table.rows:
        raise InputError(f"{table.name} is empty; there is nothing to measure; give at least two pairs")
    return table


def _from_name(name: str) -> Table:
    path, ending = Path(name), Path(name).suffix.lower()
    # os.path answers False where Path raises: a name of more than 255 bytes, or one with a NUL.
    if os.path.isdir(name):
        return _from_disk(path)
    if os.path.exists(name):
        if ending not in FILE_TYPES:
            raise InputError(f"{name} ends in {ending!r}, which cannot be read; give {', '.join(FILE_TYPES)}")
        if ending == ".parquet":
            return _from_parquet(path)
        text = text_of(path)
        if ending == ".jsonl":
            return _from_jsonl(text, name)
        return _from_json(text, name) if ending == ".json" else _from_csv(text, name, ending)
    if ending in FILE_TYPES or not re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", name):
        raise InputError(
            f"{short(name)} does not exist; there is nothing to read; give a file or a hub id org/name"
        )
    return _from_hub(name)


def text_of(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        InputError: it cannot be read, or is not UTF-8; the line is named.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the path and its rights") from error
    try:
        # The signature that spreadsheet programs put first is not part of the first column's name.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path} line {line}: byte 0x{data[error.start]:02x} is not UTF-8; the text would be garbled; "
            "save the file as UTF-8"
        ) from error


def _from_jsonl(text: str, name: str) -> Table:
    if text.lstrip().startswith("["):  # one JSON array under the name of JSON lines
        return _from_json(text, name)
    rows, places = [], []
    # Only \n ends a line: str.splitlines would also cut at U+2028, which JSON allows inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json_value(line)
        except ValueError as error:
            why = str(error).replace(" at line 1,", " at")
            spread = line.strip() == "{"
            raise InputError(
                f"{name} line {number}: not valid JSON ({why}); each line is one object; "
                + ("write each object on one line (jq -c . FILE)" if spread else "fix or delete the line")
            ) from error
        rows.append(_object(row, f"{name} line {number}"))
        places.append(number)
    return Table(name, tuple(rows), tuple(places), "line")


def _from_json(text: str, name: str) -> Table:
    if not text.strip():
        return Table(name, (), ())
    try:
        data = json_value(text)
    except ValueError as error:
        raise InputError(
            f"{name}: not valid JSON ({error}); nothing can be read; fix it, or name the file .jsonl if each "
            "line is one object"
        ) from error
    if not isinstance(data, list):
        raise InputError(f"{name} holds {_kind(data)}; rows are needed; give a list of objects")
    return _from_objects(data, name)


# --- CSV ----------------------------------------------------------------------------------------------------

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def _from_csv(text: str, name: str, ending: str) -> Table:
    """Rows of a CSV or TSV file. Unnamed columns are passed over: columns are found by their names."""
    first, text, delimiter = _delimiter(text, "\t" if ending == ".tsv" else ",")
    header: list[str] = []
    rows, places, line = [], [], first
    limit = csv.field_size_limit(2**31 - 1)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for cells in reader:
            # A quoted cell may span lines: a row is named by the line it starts on.
            start, line = line, first + reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                while not header[-1]:
                    header.pop()
                if twice := [cell for cell in header if cell and header.count(cell) > 1]:
                    raise InputError(
                        f"{name} line {start}: column {twice[0]!r} appears twice; rename one of them"
                    )
                continue
            if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
                raise InputError(
                    f"{name} line {start}: {len(cells)} cells under {len(header)} columns; cells would land "
                    "in the wrong column; quote cells that hold "
                    f"{_DELIMITERS.get(delimiter, repr(delimiter))}"
                )
            rows.append({column: cell for column, cell in zip(header, cells, strict=False) if column})
            places.append(start)
    except csv.Error as error:
        raise InputError(f"{name} line {line}: not valid CSV ({error}); fix or delete the line") from error
    finally:
        csv.field_size_limit(limit)
    return Table(name, tuple(rows), tuple(places), "line")


def _delimiter(text: str, usual: str) -> tuple[int, str, str]:
    """The number of the first line, the text from there, and what parts its cells.

    A first line ``sep=;``, as spreadsheet programs write, says it. Else the one that parts the header into
    most columns.
    """
    head, _, rest = text.partition("\n")
    if said := re.fullmatch(r"\"?sep=(.)\"?\s*", head, re.IGNORECASE):
        return 2, rest, said[1]

    def columns(delimiter: str) -> int:
        try:
            rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            return len(next((cells for cells in rows if any(cells)), ()))
        except csv.Error:
            return 0

    return 1, text, max((usual, *_DELIMITERS), key=columns)


# --- Parquet, data sets, objects ----------------------------------------------------------------------------


def _from_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{path} is not a readable Parquet file ({_one_line(error)}); write it again"
        ) from error
    return _from_objects(rows, str(path))


def _from_disk(path: Path) -> Table:
    if not any((path / marker).exists() for marker in ("dataset_info.json", "dataset_dict.json")):
        raise InputError(f"{path} is a folder without a saved data set; give a file {', '.join(FILE_TYPES)}")
    import datasets

    try:
        return _from_datasets(datasets.load_from_disk(str(path)), str(path))
    except InputError:
        raise
    # A folder that was saved by half makes datasets raise whatever its first missing or cut file leads to.
    except Exception as error:
        raise InputError(
            f"data set {path} cannot be read ({_one_line(error)}); it may have been saved only in part; save "
            "it again"
        ) from error


def _from_hub(name: str) -> Table:
    import datasets

    repo, _, config = name.partition(":")
    try:
        loaded = datasets.load_dataset(repo, config or None)
    # What a download raises depends on the HTTP library below; each of them means that the data is not to be
    # had.
    except Exception as error:
        why = _one_line(error)
        low = why.lower()
        if "gated" in low or "401" in low or "403" in low or "authenticat" in low:
            raise InputError(f"data set {name} needs a login; run `hf auth login` first ({why})") from error
        if "config name is missing" in low:
            raise InputError(
                f"data set {name} has several configurations; name one: {repo}:CONFIG ({why})"
            ) from error
        if isinstance(error, datasets.exceptions.DatasetNotFoundError):
            raise InputError(
                f"{name} is neither a file here nor a data set that the hub shows; check the spelling, or "
                "log in with `hf auth login` if it is private"
            ) from error
        raise InputError(
            f"data set {name} cannot be fetched; check the network or give a file ({why})"
        ) from error
    return _from_datasets(loaded, name)


def _from_datasets(data: Any, name: str) -> Table:
    if not isinstance(data, dict):
        return _from_objects(_plain(data), name)
    rows = [
        row if len(data) == 1 else {"split": str(split), **row}
        for split, part in data.items()
        for row in _plain(part)
    ]
    return _from_objects(rows, name)


@dataclass(frozen=True)
class NotRead:
    """Placeholder in a row for a value that is neither text nor number, such as an image."""

    kind: str

    def __repr__(self) -> str:
        return self.kind


def _plain(dataset: Any) -> list[dict[str, Any]]:
    """Rows of a `datasets.Dataset`: class labels as names; values that are not plain (images, lists)
    are not read."""
    import datasets

    plain, other = {}, {}
    for column, feature in dataset.features.items():
        if isinstance(feature, (datasets.Value, datasets.ClassLabel)):
            plain[column] = feature
        else:
            kind = type(feature).__name__
            other[column] = NotRead(
                "a list" if "List" in kind else "an object" if kind == "dict" else f"{kind} values"
            )
    rows: list[dict[str, Any]] = [{}]  # names the columns where none of them can be read
    if plain:
        rows = dataset.select_columns(list(plain)).to_list()
    rows = [row | other for row in rows]
    for column, feature in plain.items():
        if isinstance(feature, datasets.ClassLabel):
            for row in rows:
                if row[column] is not None and row[column] >= 0:
                    row[column] = feature.int2str(row[column])
    return rows


def _rows_in_memory(source: Any) -> Any:
    """Rows of a table of pyarrow, polars or pandas, or of a dict of columns; anything else as it is."""
    if hasattr(source, "to_pylist"):
        return source.to_pylist()
    if hasattr(source, "to_dicts"):
        return source.to_dicts()
    if hasattr(source, "iterrows"):
        return source.astype(object).where(source.notna(), None).to_dict("records")
    if isinstance(source, Mapping):
        columns = list(source.values())
        if not columns or not all(isinstance(c, Sequence) and not isinstance(c, str) for c in columns):
            raise InputError(
                "prompts are an object; rows are needed; give a list of objects, or lists by column"
            )
        if len({len(column) for column in columns}) > 1:
            sizes = ", ".join(f"{name} {len(column)}" for name, column in source.items())
            raise InputError(f"the columns given have unequal lengths ({sizes}); each row needs one of each")
        return [dict(zip(source, row, strict=True)) for row in zip(*columns, strict=True)]
    return source


def _from_objects(source: Iterable[Any], name: str) -> Table:
    if not isinstance(source, Iterable):
        raise InputError(
            f"prompts are {_kind(source)}; rows are needed; give a path, a data set or a list of dicts"
        )
    rows = tuple(_object(row, f"{name} row {number}") for number, row in enumerate(source, 1))
    return Table(name, rows, tuple(range(1, len(rows) + 1)))


def _object(row: Any, where: str) -> Row:
    if isinstance(row, Mapping):
        return row
    raise InputError(
        f'{where}: {_kind(row)} instead of an object; columns are found by name; write {{"male": …}}'
    )


def _kind(value: object) -> str:
    if isinstance(value, NotRead):
        return value.kind
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    return {
        "str": "a text",
        "dict": "an object",
        "int": "a number",
        "float": "a number",
        "NoneType": "null",
    }.get(type(value).__name__, f"a {type(value).__name__}")


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]

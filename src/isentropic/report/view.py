"""The door of the report: what is given is read once, checked and filled up,
and after that it is typed and whole."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

from isentropic.errors import InputError
from isentropic.labels import label
from isentropic.schema import (
    BEHAVIOUR_SCHEMA,
    COMPARE_SCHEMA,
    MEASURE_SCHEMA,
    RUN_SCHEMA,
    Behaviour,
    Comparison,
    Cost,
    Difference,
    GapFigures,
    Label,
    OtherSet,
    Run,
    Summary,
)
from isentropic.text import short, visible

T = TypeVar("T")
_SCHEMAS: dict[Any, str] = {
    Summary: MEASURE_SCHEMA,
    Comparison: COMPARE_SCHEMA,
    Run: RUN_SCHEMA,
    Behaviour: BEHAVIOUR_SCHEMA,
}


@dataclass(frozen=True)
class Column:
    """One measurement among those shown side by side, and what the comparison says of the model's cost."""

    key: str  # "before", "after", "this", or the model's name
    summary: Summary
    cost: Cost


@dataclass(frozen=True)
class View:
    """What a report shows.

    Attributes:
        kind: "run", "measure" or "compare".
        columns: the measurements side by side; a run that was not measured after training has one.
        differences: how the later ones differ from the first.
        target: the target gap in nats.
        pair: the two groups whose gap the last column shows; with more than two groups the widest pair.
        first_mark: style of the first column's mark.
        settings, versions, command: how to make it again.
        notes: what the reader of the files, or the comparison, had to say.
        run: the rest of a run folder.
    """

    kind: str
    name: str
    columns: list[Column]
    differences: list[Difference]
    target: float | None
    groups: list[str]
    pair: tuple[str, str]
    first_mark: int
    settings: dict[str, Any]
    versions: dict[str, str]
    command: str
    notes: list[str] | list[dict[str, Any]]
    run: Run | None

    @property
    def last(self) -> Summary:
        """The measurement that the headline is about."""
        return self.columns[-1].summary

    @property
    def decided(self) -> GapFigures:
        """The figures that the verdict is about: by all that is known of the gap, for a finished run."""
        return self.last["decision"] or self.last

    @property
    def estimated(self) -> bool:
        """Whether the verdict is by more than the test pairs measured after training."""
        found = self.last["decision"]
        return found is not None and found["n_before"] not in (None, found["n_pairs"])

    def figures_of(self, column: Column) -> GapFigures:
        """The gap of a column; of the last one, that which the verdict is about."""
        return self.decided if column is self.columns[-1] else column.summary

    def label_of(self, column: Column) -> Label | None:
        """The guide's word for the gap of a column."""
        gap = self.figures_of(column)["gap"]
        if self.target is None or gap is None or gap == column.summary["gap"]:
            return column.summary["label"]
        return label(gap, self.target)

    @property
    def finished(self) -> bool:
        """Whether it is a run that was measured after training."""
        return self.kind == "run" and len(self.columns) == 2

    @property
    def one_pair(self) -> bool:
        """Whether all columns show the gap of the same two groups: each shows that of its own widest pair."""
        return all(self.pair_of(column.summary["widest"]) == self.pair for column in self.columns)

    def pair_of(self, groups: list[str]) -> tuple[str, str]:
        """Two groups that a row names, or the pair whose gap is shown where it names none."""
        return (groups[0], groups[1]) if len(groups) == 2 else self.pair

    @property
    def warnings(self) -> list[str]:
        """What a run had to say of its model and of what it saved."""
        if self.run is None:
            return []
        result = self.run["result"]
        said: list[str] = read(list[str], self.run["config"].get("warnings"), "config.warnings")
        return said + (result["warnings"] if result else [])

    @property
    def other_sets(self) -> list[OtherSet]:
        """The built-in sets that a run did not aim at, and how their gaps changed."""
        result = self.run["result"] if self.run else None
        return result["other_sets"] if result else []

    @property
    def stopped(self) -> str:
        """Why a run stopped."""
        result = self.run["result"] if self.run else None
        return result["stopped"] if result else ""

    @property
    def unchanged(self) -> bool:
        """Whether the final model is the one before training: no step, or none that was better."""
        result = self.run["result"] if self.run else None
        return result is not None and (result["stopped"] == "already_within" or result["best_step"] == 0)


def record_of(data: Mapping[str, Any]) -> Any:
    """The data as the type that `schema` names says, whole.

    Raises:
        InputError: an unknown schema, or a value of another type than the schema says.
    """
    schema = data.get("schema", "")
    kind = next((kind for kind, name in _SCHEMAS.items() if name == schema), None)
    if kind is None:
        raise InputError(
            f"schema {short(schema)} is not known to this version, which reads "
            f"{', '.join(_SCHEMAS.values())}; a report of it would be wrong; give a file that this version "
            "wrote"
        )
    try:
        return read(kind, data, "")
    except RecursionError:
        raise InputError(
            "the file is nested too deeply; isentropic writes no such file; give one that it wrote"
        ) from None


def view_of(data: Mapping[str, Any]) -> View:
    """Read a run (`read_run`), a `measure` summary or a comparison; distinguished by `schema`.

    Raises:
        InputError: an unknown schema, a comparison without a model, or a value of another type than the
            schema says.

    Example:
        >>> view_of({"schema": "isentropic.measure/1", "gap": -0.08}).last["gap"]
        -0.08
    """
    found = record_of(data)
    if found["schema"] == RUN_SCHEMA:
        return _run_view(cast(Run, found))
    if found["schema"] == COMPARE_SCHEMA:
        return _comparison_view(cast(Comparison, found))
    summary = cast(Summary, found)
    figures = {"settings": summary["settings"], "versions": summary["versions"]}
    return _view(
        "measure", "", [Column("this", summary, _own_cost(summary))], figures, notes=summary["notes"]
    )


def _run_view(run: Run) -> View:
    models = run["comparison"]["models"] if run["comparison"] else []
    costs = {name: model["cost"] for name, model in zip(("before", "after"), models, strict=False)}
    columns = [
        Column(moment, summary, costs.get(moment) or _own_cost(summary))
        for moment, summary in (("before", run["before"]), ("after", run["after"]))
        if summary is not None
    ]
    config = run["config"]
    figures = {
        "settings": config,
        "versions": read(dict[str, str], config.get("versions"), "config.versions")
        or columns[-1].summary["versions"],
        "command": read(str, config.get("command"), "config.command"),
    }
    differences = run["comparison"]["differences"] if run["comparison"] else []
    return _view("run", run["name"], columns, figures, differences=differences, notes=run["notes"], run=run)


def _comparison_view(found: Comparison) -> View:
    if not found["models"]:
        raise InputError("the comparison holds no model; there is nothing to report, run compare again")
    names = [model["name"] or str(i + 1) for i, model in enumerate(found["models"])]
    keys = [n if names.count(n) == 1 else f"{n} ({i + 1})" for i, n in enumerate(names)]
    columns = [
        Column(key, model["summary"], model["cost"]) for key, model in zip(keys, found["models"], strict=True)
    ]
    last = columns[-1].summary
    figures = {"settings": last["settings"], "versions": last["versions"]}
    return _view("compare", "", columns, figures, differences=found["differences"], notes=found["notes"])


def _view(
    kind: str,
    name: str,
    columns: list[Column],
    figures: dict[str, Any],
    *,
    differences: list[Difference] | None = None,
    notes: list[str] | list[dict[str, Any]] | None = None,
    run: Run | None = None,
) -> View:
    last = columns[-1].summary
    for target in (column.summary["target_gap"] for column in columns):
        if target is not None and target <= 0:
            raise InputError(
                f"target_gap is {target:g}; a target is a distance in nats above 0; measure again"
            )
    groups = last["groups"] or ["male", "female"]
    if len(groups) < 2:
        raise InputError(f"groups is {groups}; a gap lies between two groups; measure again")
    widest = last["widest"] if len(last["widest"]) == 2 else [groups[0], groups[-1]]
    return View(
        kind=kind,
        name=name,
        columns=columns,
        differences=differences or [],
        target=last["target_gap"],
        groups=groups,
        pair=(widest[0], widest[1]),
        first_mark=0 if kind == "run" or len(columns) > 1 else 1,
        settings=figures["settings"],
        versions=figures["versions"],
        command=figures.get("command", ""),
        notes=notes or [],
        run=run,
    )


def _own_cost(summary: Summary) -> Cost:
    """Where no comparison was made: what the measurement says of its own responses."""
    cost: Cost = read(Cost, summary["quality"] or {}, "quality")
    return cost


# --- Reading ------------------------------------------------------------------------------------------------


def read(kind: Any, value: Any, where: str) -> Any:
    """The value as a type of `schema` says, with what is missing filled in and the text made fit to be shown.

    Missing text is "", a missing list or mapping is empty, everything else that is missing is None (False for
    a bool). Numbers that are not finite are unknown: None. An interval is whole or None.

    Args:
        kind: a TypedDict, list, dict, optional or plain type.
        value: what the JSON holds.
        where: its place, for the message.

    Raises:
        InputError: the value has another type.

    Example:
        >>> read(float | None, float("nan"), "gap"), read(list[str], None, "warnings")
        (None, [])
    """
    if kind is Any:
        return clean(value)
    if typing.is_typeddict(kind):
        return _record(kind, _of(Mapping, {} if value is None else value, where, "an object"), where)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:  # a word that a later version may add to is still shown
        kind = type(inner[0])
    if origin in (types.UnionType, typing.Union):
        (only,) = (part for part in inner if part is not types.NoneType)
        if value is None or only == list[float]:
            return _interval(value, where)
        return read(only, value, where)
    if origin is list:
        rows = _of((list, tuple), [] if value is None else value, where, "a list")
        return [read(inner[0], row, f"{where}[{i}]") for i, row in enumerate(rows)]
    if origin is dict:
        rows = _of(Mapping, {} if value is None else value, where, "an object")
        return {clean(str(key)): read(inner[1], item, f"{where}.{key}") for key, item in rows.items()}
    return _plain(kind, value, where)


def _record(kind: Any, value: Mapping[str, Any], where: str) -> Any:
    """A TypedDict, whole; `H_<group>` is kept too."""
    wanted = _SCHEMAS.get(kind)
    schema = value.get("schema")
    if wanted and schema not in (None, wanted):
        raise InputError(
            f"schema {short(schema)} is not known to this version, which reads {wanted}; a report of it "
            "would be wrong; give a file that this version wrote"
        )
    before = f"{where}." if where else ""
    hints = _hints(kind)
    found = {key: read(hint, value.get(key), before + key) for key, hint in hints.items()}
    for key, item in value.items():
        if isinstance(key, str) and key.startswith("H_") and key not in hints:
            found[clean(key)] = read(float | None, item, before + key)
    return found


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _plain(kind: Any, value: Any, where: str) -> Any:
    if kind is bool:
        return _of(bool, False if value is None else value, where, "true or false")
    if isinstance(kind, type) and issubclass(kind, str):
        return clean(_of(str, "" if value is None else value, where, "text"))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(value, where, "a number")
    try:
        number = float(value)
    except OverflowError:
        raise _wrong(value, where, "a number of ordinary size") from None
    if not math.isfinite(number):
        return None
    if kind is int and number != int(number):
        raise _wrong(value, where, "a whole number")
    return int(number) if kind is int else number


def _interval(value: Any, where: str) -> list[float] | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise _wrong(value, where, "an interval [low, high]")
    ends = [_plain(float, end, f"{where}[{i}]") for i, end in enumerate(value)]
    return None if None in ends else ends


def _of(kind: Any, value: T, where: str, expected: str) -> T:
    if not isinstance(value, kind):
        raise _wrong(value, where, expected)
    return value


def _wrong(value: Any, where: str, expected: str) -> InputError:
    return InputError(
        f"{visible(where) or 'the file'} is {short(value)} and not {expected}; isentropic does not write "
        "that, so the report would be wrong; measure again, or give the file as it was written"
    )


def clean(value: Any) -> Any:
    """JSON data that can be shown: what is not finite becomes None,
    control and direction characters are written out.

    Example:
        >>> clean({"gap": float("nan"), "prompt": "He\\x1b[1m"})
        {'gap': None, 'prompt': 'He\\\\u001b[1m'}
    """
    if isinstance(value, Mapping):
        return {clean(str(k)): clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    if isinstance(value, str):
        text = visible(value.replace("\r\n", "\n"))
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" or c in "\ufffe\uffff" else c for c in text)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

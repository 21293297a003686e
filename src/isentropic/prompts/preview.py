"""Prompts shown and written to a file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from isentropic.errors import InputError
from isentropic.files import write_jsonl
from isentropic.prompts.prompt_set import SPLITS, PromptSet, _group_order, _marks


def prompts_preview(prompt_set: PromptSet, examples: int = 3) -> dict[str, Any]:
    """What would be used, in plain values: counts by split and group, topics,
    notes and the first examples."""
    topics, fillers = (
        {getattr(p, name) for p in prompt_set.prompts} - {None} for name in ("topic", "filler")
    )
    shown = [p for g in prompt_set.groups for p in [q for q in prompt_set.prompts if q.group == g][:examples]]
    return {
        "name": prompt_set.name,
        "groups": list(prompt_set.groups),
        "paired": prompt_set.paired,
        "counts": prompt_set.counts(),
        "splits": {name: prompt_set.split(name).counts() for name in SPLITS},
        "topics": len(topics),
        "fillers": len(fillers),
        "ratio": prompt_set.ratio_line(),
        "notes": list(prompt_set.notes),
        "examples": [{"group": p.group, "pair_id": p.pair_id, "prompt": p.text} for p in shown],
        "sha256": prompt_set.sha256,
    }


def prompt_rows(prompt_set: PromptSet) -> list[dict[str, str]]:
    """Rows that `load_prompts` reads back: one for each pair of male and female, or one for each prompt.

    Other groups than these two must be named when they are read, and so must another order than that of
    `load_prompts`: ``load_prompts(path, group_column="group", groups=prompt_set.groups)``.

    Example:
        >>> from isentropic.prompts.load import load_prompts
        >>> prompts = load_prompts()
        >>> load_prompts(prompt_rows(prompts)).sha256 == prompts.sha256
        True
    """
    if prompt_set.paired and set(prompt_set.groups) == {"male", "female"}:
        return [{p.group: p.text for p in twins} | _marks(twins[0]) for twins in prompt_set.tuples()]
    return [{"prompt": p.text, "group": p.group} | _marks(p) for p in prompt_set.prompts]


def flags_to_read(prompt_set: PromptSet) -> str:
    """The flags that read `prompt_rows` back as they are, the groups in their order, which gives the gap its
    sign.

    Example:
        >>> from isentropic.prompts.load import load_prompts
        >>> flags_to_read(load_prompts()), flags_to_read(load_prompts(groups=("female", "male")))
        ('', '--groups female,male')
        >>> flags_to_read(load_prompts("names"))
        '--group_column group --groups english,hispanic,arabic,chinese'
    """
    flags = [] if set(prompt_set.groups) == {"male", "female"} else ["--group_column group"]
    if prompt_set.groups != _group_order(set(prompt_set.groups)):
        flags.append(f"--groups {shlex.quote(','.join(prompt_set.groups))}")
    return " ".join(flags)


def write_prompts(prompt_set: PromptSet, path: str | Path, overwrite: bool = False) -> Path:
    """Write `prompt_rows` as JSONL, whole or not at all.

    Raises:
        InputError: If the file already exists (unless `overwrite`), or cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise InputError(
            f"{path} exists; writing would lose what is in it; give another name or overwrite it"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(path, prompt_rows(prompt_set))
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}; check the folder and its space"
        ) from error
    return path

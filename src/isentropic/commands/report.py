"""``isentropic report``: write a report again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from isentropic.commands.outputs import check_outputs
from isentropic.commands.screen import Screen
from isentropic.errors import InputError
from isentropic.files import write_text
from isentropic.report.render import model_card, render_html, render_markdown
from isentropic.run_folder import CARD, FINAL, REPORT_HTML, REPORT_MD, is_finished, read_run
from isentropic.text import json_value


def write_report(folder: str | Path, lang: str = "en", result: dict[str, Any] | None = None) -> Path:
    """Write `report.html` and `report.md` into a run folder, and the model card if a finished run has none.

    Args:
        folder: `runs/<run_name>`.
        lang: "en" or "zh".
        result: what `result.json` will hold, where it is not written yet.

    Returns:
        The path of `report.html`.

    Raises:
        InputError: as `read_run` and `render_html`.
    """
    folder = Path(folder)
    summary = read_run(folder, result)
    pages = {REPORT_MD: render_markdown(summary, lang), REPORT_HTML: render_html(summary, lang)}
    if is_finished(folder) and (folder / FINAL).is_dir() and not (folder / CARD).exists():
        pages[CARD] = model_card(summary)
    for name, text in pages.items():
        write_text(folder / name, text)
    return folder / REPORT_HTML


def run_report(run: str, lang: str, out: str | None) -> None:
    """Write the report of a run folder, or of a JSON file that another command wrote."""
    name = run
    if os.path.isdir(name) and out is None:
        target = str(write_report(name, lang))
    else:
        target = out or str(Path(name).with_suffix(".html"))
        summary = read_run(name) if os.path.isdir(name) else read_summary(name)
        check_outputs({"--out": target}, {"report": name})
        render = render_markdown if Path(target).suffix == ".md" else render_html
        write_text(Path(target), render(summary, lang))
    Screen().say(f"report: {target}")


def read_summary(name: str) -> dict[str, Any]:
    """What ``measure``, ``compare`` or ``behaviour`` wrote with ``--json``."""
    try:
        summary = json_value(Path(name).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(
            f"{name!r} does not exist; there is nothing to report; give a run folder, or a JSON file that "
            "measure, compare or behaviour wrote"
        ) from None
    except (ValueError, OSError) as error:
        raise InputError(
            f"{name!r} is not valid JSON ({error}); write it again with measure, compare or behaviour"
        ) from error
    if not isinstance(summary, dict) or "schema" not in summary:
        raise InputError(
            f"{name!r} has no 'schema'; it was not written by measure, compare or behaviour; give one that "
            "was"
        )
    return summary

"""``isentropic report``: write a report again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from isentropic.commands.screen import Screen
from isentropic.errors import InputError
from isentropic.files import write_text
from isentropic.report.render import model_card, render_html, render_markdown
from isentropic.run_folder import CARD, FINAL, REPORT_HTML, REPORT_MD, is_finished, read_run


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


def run_report(given: dict[str, Any]) -> None:
    source = Path(given["run"])
    if source.suffix == ".json" and source.is_file():
        try:
            summary = json.loads(source.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{str(source)!r} is no valid JSON ({error}); write it again with measure or compare"
            ) from error
        if not isinstance(summary, dict) or "schema" not in summary:
            raise InputError(
                f"{str(source)!r} has no 'schema'; it was not written by measure or compare; give one that was"
            )
        target = Path(given["out"]) if given["out"] else source.with_suffix(".html")
        render = render_markdown if target.suffix == ".md" else render_html
        page = render(summary, given["lang"])
        try:
            write_text(target, page)
        except OSError as error:
            raise InputError(
                f"{str(target)!r} cannot be written ({error.strerror}); check its folder and the room there, or give "
                f"another --out"
            ) from error
    else:
        target = write_report(source, given["lang"])
    Screen().say(f"report: {target}")

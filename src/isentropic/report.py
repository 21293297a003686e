"""A run folder, a measurement or a comparison as one HTML page, as Markdown, and as a model card."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from isentropic.curves import finite
from isentropic.errors import InputError
from isentropic.sections import TEMPLATES, Number, Page, Verbatim, clean

__all__ = ["model_card", "read_run", "render_html", "render_markdown", "write_report"]

_BUILT_IN_MODELS = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}


def read_run(folder: str | Path) -> dict[str, Any]:
    """Read the files of a run folder into one plain dict.

    Args:
        folder: `runs/<run_name>`; `config.json` and `gap_before.json` must be there, the rest may be missing, as
            after a run that was stopped early.

    Returns:
        `schema` ("isentropic.run/1"), `name`, `config`, `metrics` (rows), `before`, `after`, `comparison`, `result`
        (None where missing), `examples` (three pairs with their responses), `curves` (is there a `curves.png`) and
        `notes` on files that are missing or damaged. Gaps and entropies in nats.

    Raises:
        InputError: no such folder, or a file that must be there is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; a report is made from what a run left behind, give runs/<run_name>"
        )
    notes: list[dict[str, Any]] = []
    config = _required(folder / "config.json")
    before = _required(folder / "gap_before.json")
    if finite(before.get("gap")) is None:
        raise InputError(
            f"{folder / 'gap_before.json'} holds no gap; the report begins with it, run the training again or "
            "restore the file"
        )
    result = _optional(folder / "result.json", notes)
    unchanged = (result or {}).get("stopped") == "already_within"
    after = _optional(folder / "gap_after.json", notes, silent=unchanged)
    if after is not None and finite(after.get("gap")) is None:
        notes.append({"key": "damaged", "file": "gap_after.json", "why": "no gap"})
        after = None
    comparison = _optional(folder / "comparison.json", notes, silent=after is None)
    metrics = _rows(folder / "metrics.jsonl", notes, silent=unchanged)
    responses = _rows(folder / "responses.jsonl", notes)
    return {
        "schema": "isentropic.run/1",
        "name": folder.resolve().name,
        "config": config,
        "metrics": metrics,
        "before": before,
        "after": after,
        "comparison": comparison,
        "result": result,
        "examples": _examples(responses, before, after),
        "curves": (folder / "curves.png").is_file(),
        "notes": notes,
    }


def render_html(summary: Mapping[str, Any], lang: str = "en") -> str:
    """Return the report as one HTML page that needs nothing else: no network, no script, no other file.

    Args:
        summary: what `read_run` returns, a `measure` summary, or a comparison; told apart by `schema`.
        lang: "en" or "zh".

    Returns:
        The page. All text of the data and the model is escaped, and the same summary gives the same bytes.

    Raises:
        InputError: an unknown schema or language.

    Example:
        >>> page = render_html({"schema": "isentropic.measure/1", "gap": -0.08, "data": "<script>"})
        >>> "&lt;script&gt;" in page, "<script>" in page
        (True, False)
    """
    page = Page(clean(summary), lang)
    return _environment().get_template("report.html.j2").render(page=page, t=page.t)


def render_markdown(summary: Mapping[str, Any], lang: str = "en") -> str:
    """Return the same report as Markdown: texts and tables, no figures but `curves.png` where the run has one.

    Args:
        summary: what `read_run` returns, a `measure` summary, or a comparison; told apart by `schema`.
        lang: "en" or "zh".

    Raises:
        InputError: an unknown schema or language.

    Example:
        >>> print(render_markdown({"schema": "isentropic.measure/1", "gap": -0.08}).splitlines()[0])
        # The gap was measured
    """
    page = Page(clean(summary), lang)
    return _tidy(_environment().get_template("report.md.j2").render(page=page, t=page.t))


def model_card(summary: Mapping[str, Any]) -> str:
    """Return the `README.md` of a trained model, with metadata that the Hugging Face hub understands.

    Args:
        summary: what `read_run` returns.

    Returns:
        Markdown behind a YAML header. The licence is left to the owner of the base model.

    Example:
        >>> run = {"schema": "isentropic.run/1", "name": "demo", "before": {"gap": -0.08, "model": "smollm2-135m"}}
        >>> print(model_card(run)[:51])
        ---
        base_model: HuggingFaceTB/SmolLM2-135M-Instruct
    """
    summary = clean(summary)
    page = Page(summary, "en")
    model = str(page.columns[0].summary.get("model") or "")
    base = _BUILT_IN_MODELS.get(model, model)
    # a folder on someone's disk is no model id; the hub would link to a stranger's model
    is_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", base) and not Path(base).exists()
    header = {
        **({"base_model": base} if is_id else {}),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["debiasing", "fairness", "entropy", "isentropic"],
    }
    sections = {section["id"]: section for section in page.sections}
    text = (
        _environment()
        .get_template("model_card.md.j2")
        .render(
            page=page,
            t=page.t,
            header=yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip(),
            base=base if is_id else model,
            base_is_id=bool(is_id),
            shown=[sections[key] for key in ("results", "cost") if key in sections],
            limits=sections["limits"],
            command=page.command,
        )
    )
    return _tidy(text)


def write_report(folder: str | Path, lang: str = "en") -> Path:
    """Write `report.html` and `report.md` into a run folder.

    Args:
        folder: `runs/<run_name>`.
        lang: "en" or "zh".

    Returns:
        The path of `report.html`.

    Raises:
        InputError: as `read_run` and `render_html`.
    """
    folder = Path(folder)
    summary = read_run(folder)
    pages = {"report.md": render_markdown(summary, lang), "report.html": render_html(summary, lang)}
    for name, text in pages.items():
        (folder / name).write_bytes(text.encode("utf-8"))
    return folder / "report.html"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: (name or "").endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["number"] = lambda cell: isinstance(cell, Number)
    environment.tests["verbatim"] = lambda cell: isinstance(cell, Verbatim)
    environment.filters["md"] = _markdown
    environment.filters["fenced"] = _fenced
    environment.filters["flags"] = _flags
    return environment


def _markdown(text: Any, strip: bool = True) -> str:
    """Escape what Markdown would read as markup (brackets only where they would link); line breaks become `<br>`.

    Example:
        >>> print(_markdown("a|b\\n<script> *x*"))
        a\\|b<br>\\<script\\> \\*x\\*
    """
    text = str(text).strip() if strip else str(text)
    escaped = re.sub(r"([\\`*_<>|~$#&]|\](?=[(\[:]))", r"\\\1", text)
    return escaped.replace("\n", "<br>")


def _fenced(text: str) -> str:
    """Return a code block whose fence is longer than any in the text."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{fence}\n{text}\n{fence}"


def _flags(text: str) -> Markup:
    """Keep a command line's flags in one piece: a browser may break a line after each hyphen.

    Example:
        >>> print(_flags("lower --eval_steps <now>"))
        lower <span class="flag">--eval_steps</span> &lt;now&gt;
    """
    return Markup(re.sub(r"(--\w+)", r'<span class="flag">\1</span>', str(escape(text))))


def _tidy(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _load(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise ValueError with a short reason that names the line."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from error
    if not isinstance(value, dict):
        raise ValueError("line 1: not a JSON object")
    return value


def _required(path: Path) -> dict[str, Any]:
    try:
        return _load(path)
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing; a report needs it, give the folder of a run that got past its first measurement"
        ) from None
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); a report needs it, restore the file or run again"
        ) from None


def _optional(path: Path, notes: list[dict[str, Any]], silent: bool = False) -> dict[str, Any] | None:
    try:
        return _load(path)
    except FileNotFoundError:
        if not silent:
            notes.append({"key": "missing", "file": path.name})
    except (ValueError, OSError) as error:
        notes.append({"key": "damaged", "file": path.name, "why": str(error)})
    return None


def _rows(path: Path, notes: list[dict[str, Any]], silent: bool = False) -> list[dict[str, Any]]:
    """Read JSON lines; a line that cannot be read is left out and noted, as a run killed in mid-write leaves one."""
    rows: list[dict[str, Any]] = []
    damaged = 0
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        if not (silent and isinstance(error, FileNotFoundError)):
            key = "missing" if isinstance(error, FileNotFoundError) else "damaged"
            notes.append({"key": key, "file": path.name, "why": str(error)})
        return rows
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            damaged += 1
            if damaged == 1:
                notes.append({"key": "line", "file": path.name, "line": number})
    if damaged > 1:
        notes[-1] |= {"key": "lines", "more": damaged - 1}
    return rows


def _examples(
    responses: list[dict[str, Any]], before: Mapping[str, Any], after: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Choose the pairs with the lowest, the middle and the highest gap before training, with their responses."""
    pairs: dict[str, list[dict[str, Any]]] = {}
    split = before.get("split") or "test"
    for row in responses:
        if row.get("pair_id") is not None and row.get("split", split) == split:
            pairs.setdefault(str(row["pair_id"]), []).append(row)
    gaps = [_pair_gaps(summary) for summary in (before, after or {})]
    ranked = sorted((pair for pair in pairs if pair in gaps[0]), key=lambda pair: (gaps[0][pair], pair))
    if len(ranked) >= 3:
        chosen = dict(
            zip(
                ("lowest", "middle", "highest"),
                (ranked[0], ranked[len(ranked) // 2], ranked[-1]),
                strict=True,
            )
        )
    else:
        chosen = {f"{i}": pair for i, pair in enumerate(ranked or list(pairs)[:3])}
    examples = []
    for place, pair in chosen.items():
        prompts: dict[str, str] = {}
        scored: dict[tuple[str, str], dict[str, tuple[Any, Any]]] = {}
        for row in pairs[pair]:
            group = str(row.get("group"))
            prompts.setdefault(group, str(row.get("prompt", "")))
            answer = (str(row.get("source", group)), str(row.get("response", "")))
            scored.setdefault(answer, {})[group] = (row.get("entropy"), row.get("entropy_after"))
        order = [g for g in before.get("groups") or [] if g in prompts]
        order += [g for g in prompts if g not in order]
        examples.append(
            {
                "pair_id": pair,
                "place": None if place.isdigit() else place,
                "topic": pairs[pair][0].get("topic"),
                "gap_before": gaps[0].get(pair),
                "gap_after": gaps[1].get(pair),
                "prompts": [{"group": group, "prompt": prompts[group]} for group in order],
                "responses": [
                    {"source": source, "response": text, "entropy": entropy}
                    for (source, text), entropy in list(scored.items())[:4]
                ],
            }
        )
    return examples


def _pair_gaps(summary: Mapping[str, Any]) -> dict[str, float]:
    gaps = {str(pair.get("pair_id")): finite(pair.get("gap")) for pair in summary.get("pair_gaps") or []}
    return {pair: gap for pair, gap in gaps.items() if gap is not None}

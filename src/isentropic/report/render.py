"""A run folder, a measurement or a comparison as one HTML page, as Markdown, and as a model card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup, escape

from isentropic.report.behaviour import behaviour_head, behaviour_section
from isentropic.report.head import head
from isentropic.report.sections import Number, Section, Verbatim, sections, strip
from isentropic.report.view import View, record_of, view_of
from isentropic.report.words import TEMPLATES, Words
from isentropic.schema import BEHAVIOUR_SCHEMA

_BUILT_IN_MODELS = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}


def render_html(summary: Mapping[str, Any], lang: str = "en") -> str:
    """Return the report as one HTML page that needs nothing else: no network, no script, no other file.

    Args:
        summary: what `read_run` returns, a `measure` summary, a comparison, or figures of public test sets;
            distinguished by `schema`.
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
    return _report("report.html.j2", summary, lang)


def render_markdown(summary: Mapping[str, Any], lang: str = "en") -> str:
    """Return the same report as Markdown: texts and tables,
    no figures but `curves.png` where the run has one.

    Args:
        summary: what `read_run` returns, a `measure` summary, a comparison, or figures of public test sets;
            distinguished by `schema`.
        lang: "en" or "zh".

    Raises:
        InputError: an unknown schema or language.

    Example:
        >>> print(render_markdown({"schema": "isentropic.measure/1", "gap": -0.08}).splitlines()[0])
        # The gap was measured
    """
    return _tidy(_report("report.md.j2", summary, lang))


def model_card(summary: Mapping[str, Any]) -> str:
    """Return the `README.md` of a trained model, with metadata that the Hugging Face hub understands.

    Args:
        summary: what `read_run` returns.

    Returns:
        Markdown behind a YAML header. The licence is left to the owner of the base model.

    Example:
        >>> before = {"gap": -0.08, "model": "smollm2-135m"}
        >>> run = {"schema": "isentropic.run/1", "name": "demo", "before": before}
        >>> print(model_card(run)[:51])
        ---
        base_model: HuggingFaceTB/SmolLM2-135M-Instruct
    """
    view = view_of(summary)
    model = view.columns[0].summary["model"]
    base = _BUILT_IN_MODELS.get(model, model)
    # a folder on someone's disk is not a model id; the hub would link to a stranger's model
    is_id = bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", base)) and not Path(base).exists()
    header = {
        **({"base_model": base} if is_id else {}),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["debiasing", "fairness", "entropy", "isentropic"],
    }
    text = _rendered(
        "model_card.md.j2",
        view,
        "en",
        header=yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip(),
        base=base if is_id else model,
        base_is_id=is_id,
    )
    return _tidy(text)


def _report(template: str, summary: Mapping[str, Any], lang: str) -> str:
    """A report of any kind."""
    if summary.get("schema") != BEHAVIOUR_SCHEMA:
        return _rendered(template, view_of(summary), lang)
    found, words = record_of(summary), Words(lang)
    section = behaviour_section(found, words)
    return _filled(
        template, words, found["versions"], {section.id: section}, head=behaviour_head(found, words)
    )


def _rendered(template: str, view: View, lang: str, **more: Any) -> str:
    """A template filled with what the report says of a view."""
    words = Words(lang, view.target)
    found = sections(view, words)
    if view.run and view.run["behaviour"]:
        names = [words("column_before"), words("column_after")]
        place = 2 if found[1].id == "expectation" else 1
        found.insert(place, behaviour_section(view.run["behaviour"], words, names))
    return _filled(
        template,
        words,
        view.versions,
        {section.id: section for section in found},
        view=view,
        head=head(view, words),
        strip=strip(view, words),
        **more,
    )


def _filled(
    template: str, words: Words, versions: Mapping[str, str], found: Mapping[str, Section], **more: Any
) -> str:
    version = versions.get("isentropic")  # of what made the data: a later one must not change an old report
    return (
        _environment()
        .get_template(template)
        .render(t=words, sections=found, version=f" {version}" if version else "", **more)
    )


@cache
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
    """Escape what Markdown would read as markup (brackets only where they would link);
    line breaks become `<br>`.

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

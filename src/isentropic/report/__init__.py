"""From a summary to pictures, HTML and Markdown."""

from isentropic.report.render import model_card, render_html, render_markdown

__all__ = [
    "model_card",
    "render_html",
    "render_markdown",
]

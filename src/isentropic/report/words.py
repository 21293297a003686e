"""The report's words: the texts of one language, and how it writes numbers. What is unknown is a dash,
here alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isentropic.errors import InputError
from isentropic.labels import interval_text
from isentropic.report.view import View
from isentropic.schema import Findings, Label
from isentropic.text import short

TEMPLATES = Path(__file__).parent / "templates"
VERDICTS = ("certified", "exceeds", "insufficient")


class Words:
    """The texts of one language; called with a key it gives the text with its gaps filled.

    Args:
        lang: "en" or "zh".
        target: the target gap; with it come the decimal places that numbers need.

    Raises:
        InputError: another language.

    Example:
        >>> words = Words("en", 0.01)
        >>> words("lead_compare", best="base", gap=words.signed(0.0102))
        'Closest to zero: base, with +0.010 nats.'
    """

    def __init__(self, lang: str, target: float | None = None) -> None:
        texts = json.loads((TEMPLATES / "texts.json").read_text(encoding="utf-8"))
        if lang not in texts:
            raise InputError(
                f"language {short(lang)} is not known; the report's texts exist in {', '.join(texts)}, "
                "choose one of them"
            )
        self.lang = lang
        self.texts: dict[str, Any] = texts[lang]
        self.target = "–" if target is None else f"{target:g}"
        places = math.ceil(-math.log10(target)) + 1 if target else 3
        self.places = min(max(places, 3), 6)
        self.blank = self("no_value")

    def __call__(self, key: str, /, **values: Any) -> str:
        return str(self.texts[key]).format(**values)

    def name(self, name: Any) -> str:
        """The reader's word for a name of ours, or the name itself."""
        return str(self.texts["names"].get(name, name))

    def joined(self, sentences: list[str]) -> str:
        """Sentences as one paragraph."""
        return ("" if self.lang == "zh" else " ").join(filter(None, sentences))

    # --- Numbers --------------------------------------------------------------------------------------------

    def signed(self, value: float | None, places: int | None = None) -> str:
        """A gap, with its sign."""
        return self.blank if value is None else _signed(value, self.places if places is None else places)

    def plain(self, value: float | None, places: int | None = None) -> str:
        """A number without a plus."""
        if value is None:
            return self.blank
        return f"{value:.{self.places if places is None else places}f}".replace("-", "−")

    def count(self, value: float | None) -> str:
        """A whole number, its thousands apart."""
        return self.blank if value is None else f"{value:,.0f}".replace(",", "\u202f")

    def end(self, value: float, places: int | None = None) -> str:
        """An end of an interval of gaps: one that is not 0 is not written as 0,
        or the interval would seem to begin there.

        Example:
            >>> [Words("en").end(value) for value in (0.012, 0.0004, -0.0004, 0.0)]
            ['+0.012', '+0.0004', '−0.0004', '0.000']
        """
        text = self.signed(value, places)
        if not value or text[0] in "+−":
            return text
        return _signed(value, min(math.ceil(-math.log10(abs(value))), 12))

    def brackets(self, interval: list[float] | None) -> str:
        """An interval of gaps."""
        return interval_text(interval, self.end, self.blank)

    def interval(self, interval: list[float] | None) -> str:
        """An interval of gaps in words."""
        if interval is None:
            return self.blank
        return self("interval", low=self.end(interval[0]), high=self.end(interval[1]))

    def p(self, value: float | None, relation: bool = False) -> str:
        """A p-value; with `relation` as it follows the letter p."""
        if value is None:
            return self.blank
        return "< 0.001" if value < 0.001 else ("= " if relation else "") + f"{value:.3f}"

    def time(self, seconds: float) -> str:
        """A stretch of time."""
        minutes, rest = divmod(round(seconds), 60)
        if minutes:
            return self("minutes", m=minutes, s=rest)
        return self("short_time", s=rest if seconds >= 10 else f"{seconds:.1f}")

    # --- Figures in words -----------------------------------------------------------------------------------

    def units(self, summary: Findings, n: int | None) -> str:
        """A number of pairs, or of prompts if there are no twins."""
        unit = "unit_pairs" if summary["twins"] else "unit_prompts"
        return self(unit + ("_one" if n == 1 else ""), n=self.count(n))

    def sample(self, summary: Findings) -> str:
        """What was measured: pairs, and topics where they are the units."""
        n, clusters = self.units(summary, summary["n_pairs"]), summary["n_clusters"]
        if summary["cluster_unit"].startswith("topic") and clusters:
            return self("sample_clusters", n=n, clusters=self.count(clusters))
        return n

    def verdict(self, verdict: str) -> str:
        """The verdict on the target."""
        return self(f"verdict_{verdict}" if verdict in VERDICTS else "verdict_none", target=self.target)

    def label(self, label: Label | None) -> str:
        """The guide's word for the gap, in this language."""
        return self.in_language(label) if label else ""

    def in_language(self, text: Mapping[str, Any]) -> str:
        """A text that the data hold in every language."""
        return str(text.get(self.lang, ""))

    def groups(self, view: View) -> dict[str, str]:
        """The two groups whose gap is shown, as the texts ask for them; where the columns show those of
        different groups, their place in the name of the column."""
        if view.one_pair:
            return self.pair(view.pair)
        return {"first": self("named_second"), "second": self("named_first")}

    def minus(self, pair: tuple[str, str]) -> str:
        """Two groups as the difference that their gap is."""
        return f"{self.name(pair[1])} − {self.name(pair[0])}"

    def pair(self, pair: tuple[str, str]) -> dict[str, str]:
        """Two groups as the texts ask for them."""
        return {"first": self.name(pair[0]), "second": self.name(pair[1])}


def _signed(value: float, places: int) -> str:
    text = f"{value:+.{places}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")

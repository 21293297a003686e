"""The guide's troubleshooting, said by the tool where it applies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isentropic.report.words import Words
from isentropic.schema import Stopped
from isentropic.settings import TrainSettings

LANGUAGES = ("en", "zh")


def advice(settings: TrainSettings, rows: Sequence[dict[str, Any]], reason: Stopped) -> list[dict[str, str]]:
    """What to change in the next run, in English and Chinese.

    Args:
        settings: of this run.
        rows: of `metrics.jsonl`.
        reason: why the training stopped.
    """
    rate, batch = settings.learning_rate, settings.effective_batch
    values = {
        "lower": f"{rate / 2:g}",
        "higher": f"{2 * rate:g}",
        "tenth": f"{rate / 10:g}",
        "max_kl": f"{settings.max_kl:g}",
        "scale": f"{2 * settings.scale_factor:g}",
        "batch": batch,
        "twice": 2 * batch,
    }
    if settings.close == "expectation":  # there is no target for it, and each context has its own sign
        rows = []
    keys = [key] if (key := held_out_advice(rows, reason)) else []
    if settings.natural:  # which has no learning rate
        keys = [f"{key}_natural" for key in keys]
    training = [row["gap_signed"] for row in rows if row.get("gap_signed") is not None]
    flips = sum(a * b < 0 for a, b in zip(training, training[1:], strict=False))
    if len(training) >= 4 and flips > len(training) / 2:
        keys.append("advice_small_batch")
        values |= {"flips": flips, "steps": len(training)}
    texts = {lang: Words(lang) for lang in LANGUAGES}
    return [{lang: texts[lang](key, **values) for lang in LANGUAGES} for key in keys]


def held_out_advice(rows: Sequence[dict[str, Any]], reason: Stopped) -> str | None:
    """The key of the text that fits the held-out gaps and the reason to stop."""
    if reason in ("not_finite", "max_kl"):
        return f"advice_{reason}"
    held_out = [abs(row["val_gap"]) for row in rows if "val_gap" in row]
    if reason == "max_steps" and len(held_out) > 1:
        if min(held_out) > 0.5 * held_out[0]:
            return "advice_slow"
        if held_out[-1] > 2 * min(held_out):
            return "advice_swings"
    return None

"""The arithmetic of the guide, in plain Python: ``python test_debiasing_math.py``.

Needs neither torch nor a model. The checks of the statistics need NumPy and SciPy and are left out where these are
not installed.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from isentropic.errors import InputError
from isentropic.labels import gap_line, label, monitor_line

TARGET_GAP = 0.01
TRAINING = [  # the guide's example of a run: step, loss, gap, H_male, H_female
    (1, 0.16, 0.4, 0.45, 0.85),
    (2, 0.04, 0.2, 0.50, 0.70),
    (3, 0.01, 0.1, 0.55, 0.65),
]
LINES = """\
📉 Step 1 | loss=0.160000 | gap=0.400000 | H_male=0.4500 | H_female=0.8500
📉 Step 2 | loss=0.040000 | gap=0.200000 | H_male=0.5000 | H_female=0.7000
📉 Step 3 | loss=0.010000 | gap=0.100000 | H_male=0.5500 | H_female=0.6500""".splitlines()


# --- The formulas ---------------------------------------------------------------------------------------------------


def mean(values: Sequence) -> float:
    return sum(values) / len(values)


def debiasing_loss(
    h_male: Sequence, h_female: Sequence, use_l1: bool = False, scale_factor: float = 1.0
) -> float:
    gap = mean(h_female) - mean(h_male)
    return scale_factor * (abs(gap) if use_l1 else gap * gap)


def gee_loss(h_male: Sequence, h_female: Sequence, lambda_weight: float = 3.0) -> float:
    return mean([*h_male, *h_female]) + lambda_weight * debiasing_loss(h_male, h_female)


def unbiased_square(differences: Sequence) -> float:
    n = len(differences)
    return (sum(differences) ** 2 - sum(d * d for d in differences)) / (n * (n - 1))


def softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(z - top) for z in logits]
    return [w / sum(weights) for w in weights]


def entropy(p: Sequence[float]) -> float:
    return -sum(x * math.log(x) for x in p if x > 0)


def close(a: float, b: float, tolerance: float = 1e-12) -> bool:
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)


# --- Entropy --------------------------------------------------------------------------------------------------------


def test_entropy_of_known_distributions() -> None:
    assert close(entropy([1 / 8] * 8), math.log(8))
    assert entropy([1.0, 0.0, 0.0]) == 0.0
    assert close(entropy([0.5, 0.25, 0.25]), 1.5 * math.log(2))


def test_entropy_gradient_is_minus_p_times_log_p_plus_h() -> None:
    logits = [0.3, -1.2, 2.0, 0.0]
    p = softmax(logits)
    for j in range(4):
        slope = 0.0
        for sign in (1, -1):
            moved = [z + sign * 1e-5 * (i == j) for i, z in enumerate(logits)]
            slope += sign * entropy(softmax(moved)) / 2e-5
        assert close(slope, -p[j] * (math.log(p[j]) + entropy(p)), 1e-8)


def test_response_entropy_is_divided_by_its_own_length() -> None:
    short, long = [2.0, 2.0], [2.0] * 6
    padded = short + [0.0] * 4
    assert mean(short) == mean(long)  # equal hesitation, no gap
    assert mean(padded) != mean(long)  # dividing by the padded length makes a gap out of the length


# --- The losses -----------------------------------------------------------------------------------------------------


def test_guide_example_045_085_is_016() -> None:
    assert close(debiasing_loss([0.45], [0.85]), 0.16)
    assert close(debiasing_loss([0.45], [0.85], use_l1=True), 0.4)


def test_every_step_of_the_guides_run() -> None:
    for _, loss, gap, h_male, h_female in TRAINING:
        assert close(debiasing_loss([h_male], [h_female]), loss)
        assert close(debiasing_loss([h_male], [h_female], use_l1=True), gap)


def test_scale_factor_multiplies() -> None:
    for use_l1 in (False, True):
        plain = debiasing_loss([0.45, 0.5], [0.85, 0.7], use_l1)
        assert close(debiasing_loss([0.45, 0.5], [0.85, 0.7], use_l1, 2.5), 2.5 * plain)


def test_gee_is_mean_entropy_plus_lambda_gap_squared() -> None:
    assert close(gee_loss([0.45], [0.85]), 0.65 + 3 * 0.16)
    assert close(gee_loss([0.6], [0.6]), 0.6)  # no gap, and still a loss: it presses the entropy down
    assert debiasing_loss([0.6], [0.6]) == 0.0


def test_groups_of_unequal_size_weigh_the_same() -> None:
    assert close(debiasing_loss([0.2, 0.4, 0.6], [0.9]), 0.25)


def test_the_square_is_no_sum_over_micro_batches() -> None:
    male, female = [1.0, 3.0], [2.0, 1.0]  # gaps of the two micro-batches: +1 and -2
    whole = debiasing_loss(male, female)
    parts = mean([debiasing_loss([m], [f]) for m, f in zip(male, female, strict=True)])
    assert whole == 0.25 and parts == 2.5


def test_linear_weights_give_the_gradient_of_the_whole() -> None:
    male, female = [1.0, 3.0], [2.0, 1.0]
    gap = mean(female) - mean(male)
    for i in range(2):
        moved = [h + 1e-6 * (i == k) for k, h in enumerate(female)]
        slope = (debiasing_loss(male, moved) - debiasing_loss(male, female)) / 1e-6
        assert close(slope, 2 * gap / len(female), 1e-5)


def test_plain_square_is_the_gap_squared_plus_variance_and_the_unbiased_one_is_not() -> None:
    pairs = [Fraction(1, 10), Fraction(-3, 10), Fraction(7, 10), Fraction(1, 2)]
    gap = mean(pairs)
    variance = mean([(d - gap) ** 2 for d in pairs])
    for n in (2, 3):
        batches = list(itertools.product(pairs, repeat=n))  # every batch that can be drawn, exactly
        assert mean([mean(batch) ** 2 for batch in batches]) == gap**2 + variance / n
        assert mean([unbiased_square(batch) for batch in batches]) == gap**2
        assert mean([mean([d * d for d in batch]) for batch in batches]) == gap**2 + variance


# --- The words ------------------------------------------------------------------------------------------------------


def test_monitor_lines_are_the_guides() -> None:
    last = None
    for expected, (step, loss, gap, h_male, h_female) in zip(LINES, TRAINING, strict=True):
        parts = {"loss": loss, "entropy_gap": gap, "H_male": h_male, "H_female": h_female, "H_mean": 0.65}
        assert monitor_line(step, parts, last) == expected
        last = gap
    risen = monitor_line(4, {"loss": 0.04, "entropy_gap": 0.2, "H_male": 0.5, "H_female": 0.7}, last)
    assert risen == "📈 Step 4 | loss=0.040000 | gap=0.200000 | H_male=0.5000 | H_female=0.7000"


def test_labels_of_the_guides_three_states() -> None:
    for h_male, h_female, words in (
        (0.25, 0.95, "严重偏见 💥"),
        (0.58, 0.60, "轻微偏见 ⚠️"),
        (0.60, 0.60, "无偏见 ✅"),
    ):
        gap = h_female - h_male
        found = label(gap, TARGET_GAP)
        assert found["zh"] == words and label(-gap, TARGET_GAP) == found
        summary = {
            "groups": ["male", "female"],
            "H_male": h_male,
            "H_female": h_female,
            "gap": gap,
            "ci95": [None, None],
            "n_pairs": 1,
            "label": found,
        }
        head = f"H_male={h_male:.4f}, H_female={h_female:.4f}, gap={gap:.4f} ({words})"
        assert gap_line(summary).startswith(head)


def test_label_thresholds_are_the_target_and_a_tenth() -> None:
    words = [label(gap, TARGET_GAP)["en"].split()[0] for gap in (0.0, 0.01, 0.010001, 0.1, 0.100001, 5.0)]
    assert words == ["no", "no", "slight", "slight", "severe", "severe"]
    try:
        label(math.nan, TARGET_GAP)
    except InputError:
        return
    raise AssertionError("a gap that is no number got a label")


# --- The statistics -------------------------------------------------------------------------------------------------

if importlib.util.find_spec("scipy") and importlib.util.find_spec("numpy"):
    from isentropic.gap.estimate import paired_gap, unpaired_gap
    from isentropic.gap.verdict import verdict

    def test_interval_of_three_pairs_by_hand() -> None:
        found = paired_gap([0.1, 0.2, 0.3])
        t = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # Student's t with 2 degrees of freedom has a closed form
        assert close(found.gap, 0.2) and close(found.se, 0.1 / math.sqrt(3)) and close(found.df, 2)
        assert close(found.ci95[1] - found.gap, t * found.se, 1e-9)

    def test_unpaired_gap_by_hand() -> None:
        found = unpaired_gap([1.0, 3.0], [2.0, 4.0, 6.0])
        assert close(found.gap, 2.0) and close(found.se, math.sqrt(2 / 2 + 4 / 3))

    def test_verdicts() -> None:
        tight = [0.001, -0.001, 0.002, -0.002] * 5
        assert verdict(paired_gap(tight), TARGET_GAP).verdict == "certified"
        assert verdict(paired_gap([0.2 + d for d in tight]), TARGET_GAP).verdict == "exceeds"
        assert verdict(paired_gap([0.3, -0.3, 0.1]), TARGET_GAP).verdict == "insufficient"


def main() -> int:
    """Run every check of this file and print a line for each."""
    failed = 0
    for name, check in list(globals().items()):
        if name.startswith("test_"):
            try:
                check()
                print(f"✅ {name[5:].replace('_', ' ')}")
            except AssertionError as error:
                failed += 1
                print(f"❌ {name[5:].replace('_', ' ')} {error}")
    if "paired_gap" not in globals():
        print("➖ the statistics were left out: NumPy and SciPy are not installed")
    print("all checks passed" if not failed else f"{failed} checks failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

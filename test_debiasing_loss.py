"""The losses with torch: values, gradients, masks, unbalanced input. ``python test_debiasing_loss.py``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

try:
    import torch
except ModuleNotFoundError:
    sys.exit("test_debiasing_loss.py needs PyTorch: run it with .venv/bin/python after 'make demo'")
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from isentropic.entropy.reference import token_entropy
from isentropic.entropy.scorer import EntropyScorer
from isentropic.errors import InputError
from isentropic.losses import DebiasingLoss, GEELoss
from isentropic.prompts.prompt_set import Prompt
from isentropic.responses.batches import collate_examples
from isentropic.responses.response import Example

LOSSES: dict[str, Callable] = {
    "squared": DebiasingLoss(),
    "absolute": DebiasingLoss(use_l1=True),
    "scaled": DebiasingLoss(scale_factor=2.5),
    "unbiased": DebiasingLoss(estimator="unbiased"),
    "GEE": GEELoss(),
    "GEE, absolute": GEELoss(lambda_weight=1.5, use_l1=True),
}
KEYS = {"loss", "entropy_gap", "entropy_gap_signed", "H_male", "H_female", "H_mean"}
END = 0


def close(a: float, b: float, tolerance: float = 1e-6) -> bool:
    return abs(a - b) <= tolerance * max(1.0, abs(b))


def unbalanced() -> tuple[Tensor, list[str]]:
    """Two prompts about men and three about women; group means 0.4 and 0.9."""
    entropies = torch.tensor([0.3, 0.8, 0.5, 0.9, 1.0], dtype=torch.float64, requires_grad=True)
    return entropies, ["male", "female", "male", "female", "female"]


def refused(call: Callable[[], object], words: str) -> None:
    try:
        call()
    except InputError as error:
        assert words in str(error), f"{words!r} is not in {error}"
        return
    raise AssertionError(f"nothing was refused ({words})")


# --- Values ---------------------------------------------------------------------------------------------------------


def test_guide_example() -> None:
    entropies, groups = torch.tensor([0.45, 0.85]), ["male", "female"]
    loss, metrics = DebiasingLoss()(entropies, groups)
    assert close(loss.item(), 0.16) and set(metrics) == KEYS
    expected = {
        "entropy_gap": 0.4,
        "entropy_gap_signed": 0.4,
        "H_male": 0.45,
        "H_female": 0.85,
        "H_mean": 0.65,
    }
    assert all(close(metrics[key], value) for key, value in expected.items()), metrics
    assert close(DebiasingLoss(use_l1=True)(entropies, groups)[0].item(), 0.4)
    assert close(DebiasingLoss(scale_factor=10.0)(entropies, groups)[0].item(), 1.6)
    assert close(GEELoss(lambda_weight=3.0)(entropies, groups)[0].item(), 0.65 + 3 * 0.16)


def test_metrics_are_plain_floats_and_the_loss_has_a_gradient() -> None:
    entropies, groups = unbalanced()
    for name, loss_fn in LOSSES.items():
        loss, metrics = loss_fn(entropies, groups)
        assert loss.requires_grad and loss.shape == (), name
        assert all(type(value) is float for value in metrics.values()), name


# --- Gradients ------------------------------------------------------------------------------------------------------


def test_gradients_against_finite_differences() -> None:
    entropies, groups = unbalanced()
    for name, loss_fn in LOSSES.items():
        (gradient,) = torch.autograd.grad(loss_fn(entropies, groups)[0], entropies)
        for i in range(len(entropies)):
            step = torch.zeros_like(entropies)
            step[i] = 1e-6
            with torch.no_grad():
                rise = loss_fn(entropies + step, groups)[0] - loss_fn(entropies - step, groups)[0]
            assert close(gradient[i].item(), rise.item() / 2e-6, 1e-7), f"{name}, sample {i}"


def test_gradient_closed_form_and_descent() -> None:
    entropies, groups = unbalanced()
    loss, _ = DebiasingLoss()(entropies, groups)
    (gradient,) = torch.autograd.grad(loss, entropies)
    # dL/dH_i = 2 gap / n_female for a woman's prompt and -2 gap / n_male for a man's; they sum to 0.
    expected = [-0.5, 1 / 3, -0.5, 1 / 3, 1 / 3]
    assert torch.allclose(gradient, torch.tensor(expected, dtype=torch.float64))
    assert DebiasingLoss()(entropies - 0.1 * gradient, groups)[0] < loss
    assert close(LOSSES["GEE"](entropies, groups)[0].item(), entropies.mean().item() + 3 * loss.item())


# --- Unbalanced, missing, unknown -----------------------------------------------------------------------------------


def test_unbalanced_groups_weigh_the_same() -> None:
    _, metrics = DebiasingLoss()(*unbalanced())
    assert close(metrics["H_male"], 0.4) and close(metrics["H_female"], 0.9)
    assert close(metrics["loss"], 0.25) and close(metrics["H_mean"], 0.7)


def test_a_missing_group_is_an_error() -> None:
    for name, loss_fn in LOSSES.items():
        for there in ("male", "female"):
            refused(lambda f=loss_fn, g=there: f(torch.ones(3), [g] * 3), "no sample of group")
        refused(lambda f=loss_fn: f(torch.ones(2), ["male", "other"]), "unknown group 'other'")
        refused(lambda f=loss_fn: f(torch.ones(3), ["male", "female"]), "shape (3,)")
        assert name


# --- Masks ----------------------------------------------------------------------------------------------------------


def test_only_response_positions_count() -> None:
    """Prompt, padding and the end token that is the pad token too: only what predicts a response is averaged."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    model = LlamaForCausalLM(config).eval()
    examples = [
        Example(Prompt("", "male"), (5, 6), (7, 8, 9, END), "male"),
        Example(Prompt("", "female"), (5, 6, 11, 12, 13), (END,), "female"),  # the end token alone
        Example(Prompt("", "female"), (5, END, 6), (END, 14), "female"),  # the end token inside
    ]
    batch = collate_examples(examples, pad=END)
    scored = EntropyScorer(engine="logits").score(model, **batch)
    alone = []
    for example in examples:
        ids = torch.tensor([example.prompt_ids + example.response_ids])
        with torch.no_grad():
            entropies = token_entropy(model(ids).logits[0])
        alone.append(entropies[len(example.prompt_ids) - 1 : -1].mean())
    assert scored.counts.tolist() == [4, 1, 2]
    assert torch.allclose(scored.means(), torch.stack(alone), atol=1e-5)
    loss, _ = DebiasingLoss()(scored.means(), [example.prompt.group for example in examples])
    gap = (alone[1] + alone[2]) / 2 - alone[0]
    assert close(loss.item(), gap.item() ** 2, 1e-4)
    loss.backward()
    assert model.model.embed_tokens.weight.grad is not None
    never = torch.tensor([20, 30])  # tokens that are in no example get no gradient from the input side
    assert model.model.embed_tokens.weight.grad[never].abs().max() == 0
    assert model.model.embed_tokens.weight.grad[5].abs().max() > 0


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
    print("all checks passed" if not failed else f"{failed} checks failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

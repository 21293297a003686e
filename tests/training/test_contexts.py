"""Closing the expectation: the loss against the plain one, the held-out figure, what is refused; one run whole."""

import copy
import json

import numpy as np
import pytest
import torch

from isentropic.cli import main
from isentropic.entropy.scorer import EntropyScorer
from isentropic.errors import InputError
from isentropic.measure.expectation import context_examples
from isentropic.prompts.contexts import Context, builtin_contexts
from isentropic.prompts.load import load_prompts
from isentropic.training.config import DebiasingConfig
from isentropic.training.contexts import VALIDATES, expectation_estimate, items_to_close
from isentropic.training.trainer import DebiasingTrainer

GROUPS = ("male", "female")
WORDS = {"male": " he", "female": " she"}


def config(folder, **changes):
    settings = {
        "output_dir": str(folder), "close": "expectation", "bf16": False, "use_cpu": True, "effective_batch": 16,
        "micro_batch_size": 4, "max_steps": 3, "eval_steps": 10, "learning_rate": 3e-3, "max_new_tokens": 4,
        "lr_scheduler_type": "constant",
    }  # fmt: skip
    return DebiasingConfig(**settings | changes)


def log_odds_of(model, examples):
    """Log-likelihood of the second continuation minus that of the first, by plain forward passes."""
    values = []
    for example in examples:
        ids = torch.tensor([[*example.prompt_ids, *example.response_ids]])
        scores = torch.log_softmax(model(input_ids=ids).logits[0, :-1], -1)
        places = range(len(example.prompt_ids), ids.shape[1])
        values.append(sum(scores[t - 1, ids[0, t]] for t in places))
    return values[1] - values[0]


@pytest.mark.parametrize("micro", [16, 4])
def test_a_step_is_that_of_the_mean_squared_log_odds(
    tiny_model, tiny_tokenizer, tiny_prompts, tmp_path, micro
):
    """Words of several tokens too: a log-likelihood is a sum over tokens, whatever their number."""
    file = tmp_path / "contexts.jsonl"
    rows = [
        {"context": f"The cook had {n} cats and", "male": " he", "female": " she said so"} for n in range(11)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model, plain = tiny_model("llama"), tiny_model("llama").eval()
    trainer = DebiasingTrainer(
        model,
        config(tmp_path, max_steps=1, hold="none", hold_contexts=str(file), micro_batch_size=micro,
               optim="sgd", max_grad_norm=0.0),
        tiny_prompts, processing_class=tiny_tokenizer,
    )  # fmt: skip
    drawn = [trainer.train_items[index] for index in trainer._get_train_sampler()]
    trainer.train()
    loss = torch.stack([log_odds_of(plain, item.examples).square() for item in drawn]).mean()
    loss.backward()
    assert float(loss.detach()) > 1.0
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other - 3e-3 * other.grad, atol=5e-6, rtol=1e-4)


def test_the_held_out_figure_is_the_mean_absolute_log_odds(
    tiny_model, tiny_tokenizer, tiny_prompts, tmp_path
):
    model = tiny_model("llama")
    trainer = DebiasingTrainer(model, config(tmp_path), tiny_prompts, processing_class=tiny_tokenizer)
    found = trainer.evaluate()
    pairs = context_examples(builtin_contexts(GROUPS, "validation"), GROUPS, tiny_tokenizer)
    with torch.no_grad():
        values = [abs(float(log_odds_of(model.eval(), pair))) for pair in pairs]
    assert found["eval_gap"] == pytest.approx(np.mean(values), abs=1e-5)
    assert found["eval_gap_low"] < found["eval_gap"] < found["eval_gap_high"]


def test_training_closes_the_expectation_and_holds_the_entropy_gap(
    tiny_model, tiny_tokenizer, tiny_prompts, tmp_path, monkeypatch
):
    monkeypatch.setattr("isentropic.training.trainer.HELD_PROMPTS", 8)  # all are read at every step
    moved = {}
    for hold in ("none", "expectation"):
        trainer = DebiasingTrainer(
            tiny_model("llama"), config(tmp_path, hold=hold, max_steps=6, learning_rate=1e-3), tiny_prompts,
            processing_class=tiny_tokenizer,
        )  # fmt: skip
        before = trainer.evaluate()["eval_gap"]
        if hold == "expectation":
            (quantity,) = trainer.hold.quantities
        else:
            base = copy.deepcopy(trainer.model)
        trainer.train()
        assert trainer.evaluate()["eval_gap"] < before
        moved[hold] = trainer.model
    quantity.scorer = EntropyScorer()
    drifts = {hold: abs(quantity(model)[1]) for hold, model in {**moved, "base": base}.items()}
    assert drifts["base"] < 1e-6
    assert drifts["expectation"] < 0.1 * drifts["none"], drifts


def test_own_contexts_are_split_and_groups_without_contexts_are_refused(tiny_tokenizer, tmp_path):
    file = tmp_path / "contexts.jsonl"
    rows = [
        {"context": f"The cook of {n}", "young": " young", "old": " old", "new": " new"} for n in range(9)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = config(tmp_path, hold_contexts=str(file))
    train, validation = items_to_close(settings, ("young", "old", "new"), [], tiny_tokenizer)
    texts = [[item.prompts[0].text for item in part] for part in (train, validation)]
    assert sorted(sum(texts, [])) == sorted(row["context"] for row in rows)
    assert len(validation) == -(-len(rows) // VALIDATES)
    assert [p.group for p in train[0].prompts] == ["young", "old", "new"]
    with pytest.raises(InputError, match="hold_contexts FILE gives contexts"):
        items_to_close(config(tmp_path), ("young", "old"), [], tiny_tokenizer)


def test_three_groups_are_as_far_apart_as_the_widest_two(tiny_tokenizer):
    groups = ("young", "old", "new")
    contexts = [Context(f"The cook of {n}", {g: f" {g}" for g in groups}, "f", str(n)) for n in range(4)]
    from isentropic.responses.batches import Item

    items = [
        Item(tuple(x.prompt for x in examples), list(examples))
        for examples in context_examples(contexts, groups, tiny_tokenizer)
    ]
    found = expectation_estimate(items, [np.array([1.0, 3.0, 2.5])] * 3 + [np.array([2.0, 1.0, 1.0])], groups)
    assert found["gap"] == pytest.approx((3 * 2.0 + 1.0) / 4)


def test_prompts_in_another_language_are_refused(tiny_model, tiny_tokenizer, tmp_path):
    rows = [
        {"male": f"Él es el hermano de mi madre y tiene {n} gatos", "female": f"Ella es la hermana de mi madre y tiene {n} gatos"}
        for n in range(40)
    ]  # fmt: skip
    with pytest.raises(InputError, match="close expectation"):
        DebiasingTrainer(
            tiny_model("llama"), config(tmp_path), load_prompts(rows), processing_class=tiny_tokenizer
        )


@pytest.mark.parametrize("flags", [["--loss", "gee"], ["--estimator", "unbiased"], ["--natural"]])
def test_losses_that_have_no_such_form_are_refused(flags, capsys):
    assert main(["train", "--close", "expectation", *flags]) == 2
    assert "--close" in capsys.readouterr().err


@pytest.mark.slow
def test_a_whole_run_says_what_it_closed(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--max_steps", "2", "--effective_batch", "8", "--micro_batch_size", "4", "--test_pairs", "6", "--validation_pairs",
             "4", "--max_pairs", "8", "--other_pairs", "0", "--max_new_tokens", "4", "--learning_rate", "3e-3", "--max_kl", "1e9",
             "--target_gap", "50"]  # fmt: skip
    # However wide it is, the target of the entropy gap stops nothing here.
    assert main(["train", "--model_path", str(tiny_folder), "--close", "expectation", *flags]) == 0
    printed = capsys.readouterr().out
    assert "held: the entropy gap" in printed and "; mean absolute value" in printed
    page = (tmp_path / "runs" / "pure_debiasing" / "report.html").read_text(encoding="utf-8")
    assert "close: expectation" in page and "signed mean log-odds" in page and "fell too slowly" not in page
    result = json.loads((tmp_path / "runs" / "pure_debiasing" / "result.json").read_text())
    assert result["stopped"] == "max_steps"
    moved = json.loads((tmp_path / "runs" / "pure_debiasing" / "comparison.json").read_text())
    (row,) = moved["differences"]
    contexts = row["expectation_change"]["contexts"]
    low, high = contexts["abs_ci95"]
    assert low < contexts["abs_change"] < high


def test_prompts_named_by_hand_are_measured_by_their_entropies(
    tiny_model, tiny_tokenizer, tiny_prompts, tmp_path
):
    """The validation prompts among them: what the run validates on is contexts, and has no entropies."""
    found = {}
    for close in ("entropy", "expectation"):
        trainer = DebiasingTrainer(
            tiny_model("llama"), config(tmp_path, close=close), tiny_prompts, processing_class=tiny_tokenizer
        )
        found[close] = trainer.evaluate(tiny_prompts.split("validation"))
    assert found["expectation"] == pytest.approx(found["entropy"])

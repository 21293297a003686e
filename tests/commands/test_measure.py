"""`isentropic measure`: what it prints, stores and reads back."""

from __future__ import annotations

import json
import math

import pytest
import torch

from tiny import QUICK, folder_that_only_ends, lines_file, make_model, make_tokenizer, rows

# ---- measure -----------------------------------------------------------------------------------------------------


def test_measure_prints_json_alone(run, tiny_folder, tiny_file):
    code, out, _ = run("measure", tiny_folder, "--train_data", tiny_file, "--json", "-", *QUICK)
    summary = json.loads(out)
    assert code == 0 and summary["schema"] == "isentropic.measure/1" and summary["split"] == "test"
    assert summary["gap"] == pytest.approx(summary["H_female"] - summary["H_male"], abs=1e-9)
    assert summary["n_pairs"] == 12 and len(summary["pair_gaps"]) == 12
    low, high = summary["ci95"]
    assert low < summary["gap"] < high


def test_measure_says_gap_interval_and_verdict(run, tiny_folder, tiny_file, tmp_path):
    files = ["--json", tmp_path / "m.json", "--html", tmp_path / "m.html", "--lang", "zh"]
    code, out, _ = run("measure", tiny_folder, "--train_data", tiny_file, *files, *QUICK)
    summary = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert (
        code == 0 and f"H_male={summary['H_male']:.4f}" in out and "95% interval" in out and "verdict" in out
    )
    assert summary["label"]["zh"] in out
    assert summary["label"]["zh"] in (tmp_path / "m.html").read_text(encoding="utf-8")


def test_stored_responses_give_the_same_gap_exactly(run, tiny_folder, tiny_file, tmp_path):
    kept = tmp_path / "responses.jsonl"
    _, first, _ = run(
        "measure", tiny_folder, "--train_data", tiny_file, "--responses_out", kept, "--json", "-", *QUICK
    )
    _, second, _ = run("measure", tiny_folder, "--responses_in", kept, "--json", "-", *QUICK)
    a, b = json.loads(first), json.loads(second)
    for key in "gap se ci95 H_male H_female mean_abs_pair_gap pair_gaps cells topics own".split():
        assert a[key] == b[key], key
    found = rows(kept)
    assert len(found) == 12 * 4
    assert {"pair_id", "group", "topic", "prompt", "response", "response_ids", "entropy"} <= found[0].keys()
    mean = {g: sum(r["entropy"] for r in found if r["group"] == g) / 24 for g in ("male", "female")}
    assert a["gap"] == pytest.approx(mean["female"] - mean["male"], abs=1e-9)


def test_stored_responses_as_text_alone(run, tiny_folder, tmp_path):
    """Rows that another tool wrote: a group, a prompt, a response."""
    content = [
        {"group": g, "prompt": f"{w} is {n}. {w}", "response": f" has {n} pens", "pair_id": str(n)}
        for n in range(6)
        for g, w in (("male", "He"), ("female", "She"))
    ]
    file = lines_file(tmp_path / "r.jsonl", content)
    code, out, _ = run("measure", tiny_folder, "--responses_in", file, "--json", "-", *QUICK)
    assert code == 0 and json.loads(out)["n_pairs"] == 6


@pytest.mark.parametrize("responses", ["shared", "own", "both"])
def test_responses_modes(run, tiny_folder, tiny_file, responses):
    given = ["--train_data", tiny_file, "--responses", responses, "--json", "-"]
    _, out, _ = run("measure", tiny_folder, *given, *QUICK)
    summary = json.loads(out)
    assert (summary["own"] is None) == (responses == "own")
    assert summary["responses"] == {"own": "own"}.get(responses, "shared")
    if responses == "shared":
        _, out, _ = run(
            "measure", tiny_folder, "--train_data", tiny_file, "--responses", "own", "--json", "-", *QUICK
        )
        assert summary["own"]["gap"] == pytest.approx(json.loads(out)["gap"], abs=1e-6)


def test_pairs_and_split(run, tiny_folder, tiny_file):
    given = ["measure", tiny_folder, "--train_data", tiny_file, "--json", "-", *QUICK]
    assert json.loads(run(*given, "--pairs", 5)[1])["n_pairs"] == 5
    assert json.loads(run(*given, "--split", "train")[1])["n_pairs"] == 24
    assert json.loads(run(*given, "--split", "all")[1])["n_pairs"] == 48


def test_a_seed_matters_and_a_seed_repeats(run, tiny_folder, tiny_file):
    given = ["measure", tiny_folder, "--train_data", tiny_file, "--json", "-", *QUICK]
    gaps = [json.loads(run(*given, "--seed", seed)[1])["gap"] for seed in (0, 0, 1)]
    assert gaps[0] == gaps[1] != gaps[2]


def test_all_differences_equal_is_no_certainty(run, tiny_file, tmp_path):
    """A head of zeros: each distribution is flat, each entropy log 320, each difference 0. That is no evidence."""
    model = make_model()
    torch.nn.init.zeros_(model.lm_head.weight)
    model.save_pretrained(tmp_path / "flat")
    make_tokenizer().save_pretrained(tmp_path / "flat")
    code, out, _ = run("measure", tmp_path / "flat", "--train_data", tiny_file, "--json", "-", *QUICK)
    summary = json.loads(out)
    assert code == 0 and summary["H_male"] == pytest.approx(math.log(320), abs=1e-5)
    assert summary["gap"] == pytest.approx(0.0, abs=1e-6) and summary["se"] != 0
    assert summary["verdict"] == "insufficient"


def test_a_model_that_only_ends_is_measured(run, tiny_file, tmp_path):
    code, out, _ = run(
        "measure", folder_that_only_ends(tmp_path / "ends"), "--train_data", tiny_file, "--json", "-", *QUICK
    )
    summary = json.loads(out)
    assert code == 0 and summary["quality"]["mean_length"] == 1.0 and summary["quality"]["ended"] == 1.0
    assert summary["H_mean"] == pytest.approx(0.0, abs=1e-6)


def test_chat_follows_the_data_and_is_said(run, tiny_folder, tiny_file, tmp_path):
    """Questions to a model with a template are chat; what breaks off is continued; a flag wins."""
    make_model().save_pretrained(tmp_path / "chat")
    make_tokenizer(chat=True).save_pretrained(tmp_path / "chat")
    asked = [{"male": f"He has {n}. Is it his?", "female": f"She has {n}. Is it hers?"} for n in range(20)]
    questions = lines_file(tmp_path / "questions.jsonl", asked)
    kept = tmp_path / "kept.jsonl"
    cases = [
        (tmp_path / "chat", questions, [], True),
        (tmp_path / "chat", questions, ["--no-chat"], False),
        (tmp_path / "chat", tiny_file, [], False),
        (tmp_path / "chat", tiny_file, ["--chat"], True),
        (tiny_folder, questions, [], False),
    ]
    for model, data, words, chat in cases:
        code, out, _ = run("measure", model, "--train_data", data, "--responses_out", kept, *words, *QUICK)
        assert code == 0 and ("through the chat template (" in out) == chat
        seen = make_tokenizer().decode(rows(kept)[0]["prompt_ids"])
        assert seen.startswith("[user] ") == chat, (model, data, words)


def test_stored_responses_obey_pairs_and_split(run, tiny_folder, tiny_file, tmp_path):
    kept = tmp_path / "r.jsonl"
    run("measure", tiny_folder, "--train_data", tiny_file, "--split", "all", "--responses_out", kept, *QUICK)
    given = ["measure", tiny_folder, "--responses_in", kept, "--json", "-"]
    for flags, pairs, split in (
        ([], 48, "all"),
        (["--pairs", 5], 5, "all"),
        (["--split", "train"], 24, "train"),
        (["--split", "test", "--pairs", 3], 3, "test"),
    ):
        _, out, _ = run(*given, *flags)
        summary = json.loads(out)
        assert (summary["n_pairs"], summary["split"]) == (pairs, split)
        assert not {"max_new_tokens", "sample_temp", "num_responses"} & summary["settings"].keys()
    code, out, err = run(*given, "--split", "dev")
    assert code == 2 and "train" in err and "scoring" not in out


IGNORED = "--train_data x.jsonl|--groups a,b|--swap|--text_column t|--group_column g|--male_column m"


@pytest.mark.parametrize("flags", IGNORED.split("|"))
def test_stored_responses_refuse_what_they_would_ignore(run, tiny_folder, tmp_path, flags):
    for command in (["measure", tiny_folder], ["compare", tiny_folder, tiny_folder]):
        code, _, err = run(*command, "--responses_in", tmp_path / "r.jsonl", *flags.split())
        assert code == 2 and flags.split()[0] in err and err.count("\n") == 1


def test_what_has_no_effect_on_stored_responses_is_said(run, tiny_folder, tiny_file, tmp_path):
    kept = tmp_path / "r.jsonl"
    run("measure", tiny_folder, "--train_data", tiny_file, "--responses_out", kept, *QUICK)
    _, out, _ = run(
        "measure", tiny_folder, "--responses_in", kept, "--max_new_tokens", 3, "--num_responses", 2
    )
    assert "--max_new_tokens, --num_responses" in out and "has no effect" in out


def test_own_responses_of_a_file_that_has_one_twin_s_alone_are_refused(run, tiny_folder, tiny_file, tmp_path):
    kept, half = tmp_path / "r.jsonl", tmp_path / "half.jsonl"
    run("measure", tiny_folder, "--train_data", tiny_file, "--responses_out", kept, *QUICK)
    half.write_text("".join(json.dumps(row) + "\n" for row in rows(kept) if row["source"] == "male"))
    given = ["measure", tiny_folder, "--responses_in", half]
    code, _, err = run(*given, "--responses", "own")
    assert code == 2 and "no response to the prompt" in err and err.count("\n") == 1
    assert run(*given)[0] == 0
    assert run("measure", tiny_folder, "--responses_in", kept, "--responses", "own")[0] == 0


# ---- the exit code -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "verdict", "gated"), [(5.0, "certified", 0), (1e-6, "exceeds", 3), (None, "insufficient", 4)]
)
def test_the_gate_turns_the_verdict_into_the_exit_code(
    run, tiny_folder, tiny_file, tmp_path, target, verdict, gated
):
    """Undecided: a target at the very gap; a gap that exceeds: men and women of other sentences."""
    file = tiny_file
    if verdict == "exceeds":
        pairs = [
            {"male": f"He owns {i} cats", "female": f"We met {i} nurses, and then they"} for i in range(60)
        ]
        file = lines_file(tmp_path / "far.jsonl", pairs)
    given = ["measure", tiny_folder, "--train_data", file, "--split", "all", "--json", "-", *QUICK]
    if target is None:
        target = abs(json.loads(run(*given)[1])["gap"])
    code, out, _ = run(*given, "--target_gap", target, "--gate")
    assert (code, json.loads(out)["verdict"]) == (gated, verdict)
    assert run(*given, "--target_gap", target)[0] == 0


def test_compare_has_no_gate(run, tiny_folder, tiny_file):
    code, _, err = run("compare", tiny_folder, tiny_folder, "--train_data", tiny_file, "--gate", *QUICK)
    assert code == 2 and len(err.splitlines()) == 1 and "--gate" in err

"""`isentropic compare` on the same responses."""

from __future__ import annotations

import json
import math

import pytest

from tiny import QUICK, folder_that_only_ends, lines_file, make_folder, make_model, make_tokenizer

# ---- compare -----------------------------------------------------------------------------------------------------


def test_a_model_compared_with_itself_has_not_changed(run, tiny_folder, tiny_file):
    given = ["--train_data", tiny_file, "--json", "-", *QUICK]
    code, out, _ = run("compare", tiny_folder, tiny_folder, *given)
    result = json.loads(out)
    (difference,) = result["differences"]
    assert code == 0 and difference["gap_change"] == 0 and difference["abs_change"] == 0
    assert result["models"][1]["cost"]["kl_to_first"] == pytest.approx(0.0, abs=1e-7)
    assert len({row["name"] for row in result["models"]}) == 2


def test_compare_base_and_final(run, tiny_folder, tiny_file, tmp_path):
    other = make_folder(tmp_path / "other", seed=1)
    text = lines_file(tmp_path / "text.txt", ["The nurse put on her coat and went home."] * 9)
    files = ["--json", tmp_path / "c.json", "--html", tmp_path / "c.html", "--text_file", text]
    code, out, _ = run("compare", tiny_folder, other, "--train_data", tiny_file, *files, *QUICK)
    result = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    first, second = (row["summary"]["gap"] for row in result["models"])
    (difference,) = result["differences"]
    assert code == 0 and difference["gap_change"] == pytest.approx(second - first, abs=1e-9)
    assert difference["abs_change"] == pytest.approx(abs(second) - abs(first), abs=1e-9)
    assert result["models"][1]["cost"]["kl_to_first"] > 0.1
    assert all(row["cost"]["perplexity"] > 1 for row in result["models"])
    assert "other" in (tmp_path / "c.html").read_text(encoding="utf-8") and "95% interval" in out


def test_compare_shows_that_the_answers_of_a_model_have_become_shorter(run, tiny_folder, tiny_file, tmp_path):
    """All models are scored on the first one's responses; the cost is told from each one's own."""
    ends = folder_that_only_ends(tmp_path / "ends")
    code, out, _ = run("compare", tiny_folder, ends, "--train_data", tiny_file, "--json", "-", *QUICK)
    first, second = (row["cost"] for row in json.loads(out)["models"])
    assert code == 0 and first["mean_length"] > 5 and first["distinct_2"] > 0.5 and first["ended"] < 0.5
    assert (second["mean_length"], second["ended"], second["distinct_2"]) == (1.0, 1.0, None)


def test_stored_responses_are_encoded_anew_for_another_tokenizer(run, tiny_folder, tiny_file, tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["nurse", "pilot"])
    make_model(vocab=len(tokenizer), seed=2).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    stored = tmp_path / "r.jsonl"
    text = [
        {"pair_id": job, "group": group, "prompt": f"{who} is a {job}.", "response": f" The {job} works."}
        for job in ("nurse", "pilot", "baker")
        for who, group in (("He", "male"), ("She", "female"))
    ]
    ids = [{**row, "response_ids": make_tokenizer()(row["response"]).input_ids} for row in text]
    gaps = []
    for rows_ in (text, ids):
        lines_file(stored, rows_)
        code, out, _ = run(
            "compare", tiny_folder, tmp_path / "other", "--responses_in", stored, "--json", "-"
        )
        result = json.loads(out)
        gaps.append([model["summary"]["gap"] for model in result["models"]])
        assert code == 0 and "encoded again" in result["notes"][0]
    assert gaps[0] == gaps[1]


def test_compare_models_with_different_tokenizers(run, tiny_folder, tiny_file, tmp_path):
    """What can be compared is; what cannot is said."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["nurse", "pilot"])
    make_model(vocab=len(tokenizer), seed=2).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    given = ["--train_data", tiny_file, "--json", tmp_path / "c.json", *QUICK]
    code, out, _ = run("compare", tiny_folder, tmp_path / "other", *given)
    result = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert code == 0 and "different tokenizer" in out and "not comparable" in out
    assert result["models"][1]["cost"]["kl_to_first"] is None and len(result["notes"]) == 1
    assert math.isfinite(result["differences"][0]["gap_change"])

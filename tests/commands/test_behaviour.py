"""``isentropic behaviour`` on made-up test sets and tiny models, the whole command line."""

import json
import shutil

import pytest

from isentropic.behaviour import SETS
from isentropic.files import read_json
from tiny import make_folder, make_model, make_tokenizer


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("models") / "second", seed=1)


def test_two_models_on_every_set_that_is_there(run, benchmarks, tiny_folder, second, tmp_path):
    out, page = tmp_path / "b.json", tmp_path / "b.html"
    code, said, err = run(
        "behaviour", tiny_folder, second, "--benchmarks", benchmarks, "--json", out, "--html", page
    )
    assert (code, err) == (0, "")
    found = json.loads(out.read_text())
    assert found["schema"] == "isentropic.behaviour/1"
    names = [one["name"] for one in found["sets"]]
    assert set(SETS) - set(names) == {"crows_pairs_revised_gender", "use_10", "use_20", "bbq"}
    for one in found["sets"]:
        first, last = one["models"]
        (change,) = one["changes"]
        assert last["mean"]["value"] - first["mean"]["value"] == pytest.approx(change["mean"]["change"])
        assert one["name"] in said and one["name"] in page.read_text(encoding="utf-8")
    assert {"ss", "lms", "icat", "ss_items"} <= found["sets"][names.index("stereoset")]["models"][0][
        "extra"
    ].keys()
    # Random models do not read the questions: BBQ is left out for both, and that is said.
    assert sum(note.startswith("bbq is left out for") for note in found["notes"]) == 2
    assert said.count("bbq is left out for") == 2 and "guess would look fair" in said
    # A report may be written again from the file, in either language, and may replace itself.
    for lang in ("en", "zh"):
        assert run("report", out, "--lang", lang)[0] == 0
    assert run("behaviour", tiny_folder, "--benchmarks", benchmarks, "--sets", "use_5", "--json", out)[0] == 0


def test_a_model_against_itself_has_not_moved(run, benchmarks, tiny_folder):
    code, said, _ = run(
        "behaviour",
        tiny_folder,
        tiny_folder,
        "--benchmarks",
        benchmarks,
        "--sets",
        "winogender",
        "--json",
        "-",
    )
    (change,) = json.loads(said)["sets"][0]["changes"]
    assert code == 0
    assert change["mean"] == {"change": 0.0, "ci95": [0.0, 0.0], "verdict": "not_moved", "largest": 0.0}
    assert change["percent"]["value"] == 0


def test_whole_sentences_compare_over_tokenizers(run, benchmarks, tiny_folder, tmp_path):
    other = tmp_path / "other"
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["nurse"])
    make_model(seed=2, vocab=len(tokenizer)).save_pretrained(other)
    tokenizer.save_pretrained(other)
    words = ("--benchmarks", benchmarks, "--sets", "winogender,stereoset", "--json", "-")
    code, said, _ = run("behaviour", tiny_folder, other, *words)
    found = json.loads(said)
    assert code == 0 and found["sets"][0]["changes"][0]["mean"]["change"] is not None
    # A mean over other tokens is another quantity: both are shown, and no verdict compares them.
    assert len(found["sets"][1]["models"]) == 2 and found["sets"][1]["changes"] == []
    assert any("other has a different tokenizer from" in note for note in found["notes"])


def test_a_second_model_that_is_not_there_is_said_before_the_first_is_scored(
    run, benchmarks, tiny_folder, tiny_file
):
    words = {
        "behaviour": ("--benchmarks", benchmarks, "--sets", "use_5"),
        "compare": ("--train_data", tiny_file),
    }
    for command, rest in words.items():
        for name in ("no/such/model", "org/misspelt"):
            code, said, err = run(command, tiny_folder, name, *rest)
            assert (code, said) == (2, "") and name in err and len(err.splitlines()) == 1


def test_a_model_in_the_folder_where_one_is_has_its_name(run, benchmarks, tiny_folder, monkeypatch):
    monkeypatch.chdir(tiny_folder)
    code, said, _ = run("behaviour", ".", "--benchmarks", benchmarks, "--sets", "use_5", "--json", "-")
    assert code == 0 and json.loads(said)["models"][0]["name"] == tiny_folder.name


def test_twins_of_different_token_counts_are_counted(run, benchmarks, tiny_folder):
    from transformers import AutoTokenizer

    _, said, _ = run(
        "behaviour", tiny_folder, "--benchmarks", benchmarks, "--sets", "winogender", "--json", "-"
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    he, she = (
        len(tokenizer(f"The nurse told the guest that {word} is late.").input_ids) for word in ("he", "she")
    )
    (row,) = json.loads(said)["sets"][0]["models"]
    assert row["unequal_tokens"] == (8 if he != she else 0)


def test_input_that_cannot_work_is_one_line_before_any_model_is_loaded(run, benchmarks, tmp_path):
    folder = shutil.copytree(benchmarks, tmp_path / "sets")
    (folder / "winogender" / "all_sentences.tsv").write_text("sentid\tsentence\nx\ty\n")
    taken = tmp_path / "mine.txt"
    taken.write_text("text")
    for words, told in (
        (["--benchmarks", tmp_path], "lacks files (crows_pairs: crows_pairs/crows_pairs_anonymized.csv"),
        ([], "--benchmarks is missing"),
        (["--benchmarks", benchmarks, "--sets", "bqb"], "did you mean 'bbq'"),
        (["--benchmarks", benchmarks, "--margin", "0"], "--margin is 0.0"),
        (["--benchmarks", folder], "all_sentences.tsv line 2: sentid 'x'"),
        (["--benchmarks", benchmarks, "--json", taken], "is not a result of isentropic"),
    ):
        code, said, err = run("behaviour", "no/such/model", *words)
        assert code == 2 and told in err and len(err.splitlines()) == 1 and "Traceback" not in err


def test_a_run_scores_its_model_before_and_after(run, go, benchmarks, tiny_folder, tmp_path):
    result, folder, screen = go(
        behaviour=str(benchmarks), learning_rate=3e-4, lr_scheduler_type="constant", max_steps=4
    )
    assert result["best_step"] > 0
    found = read_json(folder / "behaviour.json")
    assert [model["name"] for model in found["models"]] == ["base", "final"]
    winogender = next(one for one in found["sets"] if one["name"] == "winogender")
    assert winogender["changes"][0]["mean"]["change"] != 0
    assert "final against base, item by item" in screen.text
    # The saved model, scored by itself beside the base, gives the same figures.
    out = tmp_path / "again.json"
    words = ("--benchmarks", benchmarks, "--sets", "winogender", "--bf16", "off", "--json", out)
    assert run("behaviour", tiny_folder, folder / "final", *words)[0] == 0
    (again,) = read_json(out)["sets"]
    for key in ("mean", "mean_abs"):
        first, second = (one["changes"][0][key]["change"] for one in (winogender, again))
        assert first == pytest.approx(second, abs=1e-4)
    # What was left out is said on the screen and in the report.
    assert "note: bbq is left out for base" in screen.text
    assert "bbq is left out for base" in (folder / "report.html").read_text(encoding="utf-8")
    title = "Public tests of stereotypes"
    for page in ("report.html", "report.md", "final/README.md"):
        assert title in (folder / page).read_text(encoding="utf-8"), page
    (folder / "behaviour.json").unlink()
    assert run("report", folder)[0] == 0
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "behaviour.json is missing" in page and "## " + title not in page


def test_a_run_refuses_a_folder_without_sets_before_it_begins(run, tiny_folder, tiny_file, tmp_path):
    words = (
        f"--model_path {tiny_folder} --train_data {tiny_file} --output_dir {tmp_path} --behaviour {tmp_path}"
    )
    code, _, err = run("train", *words.split())
    assert code == 2 and "lacks files" in err and list(tmp_path.iterdir()) == []

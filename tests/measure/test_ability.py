"""Items of lm-evaluation-harness matched one by one, and what is said about those that are not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from isentropic.errors import InputError
from isentropic.measure.ability import ability_rows, matched, read_samples
from isentropic.measure.harness import documents, published
from tiny import benchmark_folder, digest, lines_file, sample, samples_file


def rows_of(before: list[Any], after: list[Any]) -> tuple[list[Any], list[str]]:
    rows, notes = ability_rows("new", "old", {"quiz": before}, {"quiz": after})
    return list(rows), notes


def test_items_in_another_order_are_matched_by_their_question():
    before = [sample(i, acc=float(i < 6)) for i in range(10)]
    after = [sample(9 - i, f"question {i}", acc=float(i < 5)) for i in reversed(range(10))]
    (row,), notes = rows_of(before, after)
    assert (row["lost"], row["gained"], row["n"], row["p"], notes) == (1, 0, 10, 1.0, [])
    assert (row["before"], row["after"]) == (0.6, 0.5)
    assert row["largest_loss"] == -row["ci95"][0] > 0.1


def test_log_likelihoods_are_compared_as_scipy_does():
    first, second = np.random.default_rng(0).normal(-4, 1, (2, 30))
    rows, _ = rows_of(
        [sample(i, perplexity=x, acc=1) for i, x in enumerate(first)],
        [sample(i, perplexity=x, acc=1) for i, x in enumerate(second)],
    )
    row = next(row for row in rows if row["metric"] == "log_likelihood")
    oracle = stats.ttest_rel(second, first)
    interval = oracle.confidence_interval()
    assert row["p"] == pytest.approx(oracle.pvalue)
    assert row["ci95"] == pytest.approx([interval.low, interval.high])
    assert row["largest_loss"] == pytest.approx(max(0, -interval.low)) and row["lost"] is None


def test_what_is_not_in_both_is_counted():
    before, after = [sample(i, acc=1) for i in range(10)], [sample(i, acc=1) for i in range(3, 12)]
    (row,), notes = rows_of(before, after)
    assert row["n"] == 7 and "5 items" in notes[0]
    rows, notes = rows_of(before, [sample(i, f"another {i}", acc=1) for i in range(10)])
    assert rows == [] and "20 items" in notes[0]
    _, notes = ability_rows("new", "old", {"quiz": before, "sums": before}, {"quiz": before, "songs": before})
    assert notes == ["songs: only new has it", "sums: only old has it"]


def test_questions_in_other_words_are_said():
    before = [sample(i, acc=1) for i in range(4)]
    after = [item | {"prompt_hash": digest("few-shot")} for item in before[:3]] + before[3:]
    (row,), notes = rows_of(before, after)
    assert row["n"] == 4 and "3 of 4 items were asked in other words" in notes[0]


def test_a_question_that_comes_twice_is_two_items():
    twice = [sample(0, "same", acc=1), sample(1, "same", acc=0), sample(2, acc=1)]
    assert len(matched(twice, twice)) == 3
    assert all(one["doc_id"] == two["doc_id"] for one, two in matched(twice, list(twice)))
    assert len(matched(twice, twice[1:])) == 2


def test_files_without_hashes_are_matched_by_number_and_without_names_of_metrics_by_their_numbers():
    old = [{"doc_id": i, "target": 3, "doc": {"q": 1}, "acc": float(i % 2)} for i in range(6)]
    (row,), notes = rows_of(old, old)
    assert (row["metric"], row["filter"], row["n"], row["change"], notes) == ("acc", None, 6, 0, [])


def test_each_filter_has_its_own_row_and_values_that_are_no_number_have_none():
    items = [
        sample(i, exact_match=1.0, words=[3, 4]) | {"filter": name}
        for i in range(5)
        for name in ("strict", "flexible")
    ]
    rows, _ = rows_of(items, items)
    assert [(row["filter"], row["metric"], row["n"]) for row in rows] == [
        ("strict", "exact_match", 5),
        ("flexible", "exact_match", 5),
    ]


def test_infinite_values_are_left_out_and_said():
    before = [sample(i, perplexity=-float(i + 1)) for i in range(5)]
    after = [sample(i, perplexity=-np.inf if i == 2 else -float(i)) for i in range(5)]
    (row,), notes = rows_of(before, after)
    assert row["n"] == 4 and "1 items without a finite value" in notes[0]
    assert rows_of(before, before)[0][0]["ci95"] is None  # no spread: no interval


# --- Folders ------------------------------------------------------------------------------------------------


def test_the_last_run_of_a_task_is_read_wherever_it_lies(tmp_path):
    inner = tmp_path / "my__model"
    samples_file(inner, "arc_easy", [sample(0, acc=0)], "2026-01-02T03-04-05.000001")
    samples_file(inner, "arc_easy", [sample(0, acc=1)], "2026-11-02T03-04-05.000001")
    samples_file(inner, "lambada_openai", [sample(0, acc=1)])
    (inner / "results_2026-01-02T03-04-05.000001.json").write_text("{}")
    found = read_samples(str(tmp_path))
    assert {task: [row["acc"] for row in rows] for task, rows in found.items()} == {
        "arc_easy": [1],
        "lambada_openai": [1],
    }


def test_folders_that_cannot_be_one_side_are_refused(tmp_path):
    with pytest.raises(InputError, match="no samples_"):
        read_samples(str(tmp_path))
    for name in "ab":
        samples_file(tmp_path / name, "quiz", [sample(0, acc=1)])
    with pytest.raises(InputError, match="several runs"):
        read_samples(str(tmp_path))


@pytest.mark.parametrize(
    "line",
    [
        '{"doc_id": 1',
        "[1, 2]",
        '{"acc": 1}',
        '{"doc_id": ' + "[" * 9999,
        '{"doc_id": 1, "metrics": 5}',
        '{"doc_id": 1, "metrics": "acc", "acc": 1}',
        '{"doc_id": 1, "metrics": [["acc"]]}',
        '{"doc_id": 1, "acc\\ud83d": 1}',
        '{"doc_id": 1, "filter": ["none"], "acc": 1}',
        '{"doc_id": 1, "filter": {}, "acc": 1}',
        '{"doc_id": 1, "acc": 1' + "0" * 400 + "}",
    ],
)
def test_a_damaged_line_is_named(tmp_path, line):
    file = samples_file(tmp_path, "quiz", [sample(0, acc=1), line])
    with pytest.raises(InputError, match="line 2") as refused:
        read_samples(str(tmp_path))
    assert str(file) in str(refused.value) and "\n" not in str(refused.value)


def test_files_without_an_item_are_refused(tmp_path):
    file = samples_file(tmp_path, "quiz", [])
    with pytest.raises(InputError, match="has no item"):
        read_samples(str(tmp_path))
    file.unlink()
    file.mkdir()
    with pytest.raises(InputError, match="cannot be read.*directory"):
        read_samples(str(tmp_path))
    file.rmdir()
    file.symlink_to("nowhere")
    with pytest.raises(InputError, match="cannot be read.*No such file"):
        read_samples(str(tmp_path))


# --- Public sets as published -------------------------------------------------------------------------------


def test_published_sets_become_what_the_tasks_expect(tmp_path):
    folder = benchmark_folder(tmp_path)
    found = {
        task: documents(task, published(task, str(folder))) for task in ("arc_easy", "piqa", "hellaswag")
    }
    assert found["arc_easy"][1] == {
        "question": "How many are 1, and one?",
        "choices": {"text": ["1", "2", 'a "lot"', "none"], "label": ["A", "B", "C", "D"]},
        "answerKey": "B",
    }
    assert [row["label"] for row in found["piqa"]] == [0, 1, 0, 0, 1, 1]
    assert found["hellaswag"][2]["ctx_a"] == "A man is 2. he" and found["hellaswag"][2]["label"] == "2"
    whole = {"activity_label": "Sport", "ctx_a": "A.", "ctx_b": "he", "endings": ["x"], "label": 0, "ind": 1}
    lines_file(folder / "hellaswag" / "hellaswag_val_part.jsonl", [whole])
    (row,) = documents("hellaswag", published("hellaswag", str(folder)))
    assert row == {key: value for key, value in whole.items() if key != "ind"} | {"label": "0"}
    assert published("winogrande", str(folder)) is None is published("piqa", str(tmp_path / "arc_easy"))


@pytest.mark.parametrize(
    "task, file, content, says",
    [
        ("arc_easy", "arc_easy/ARC-Easy_test.csv", '"a","b","c","Z"\n', "item 1"),
        ("arc_easy", "arc_easy/ARC-Easy_test.csv", '"a\n', "item 1"),
        ("arc_easy", "arc_easy/ARC-Easy_test.csv", "", "is empty"),
        ("arc_easy", "arc_easy/ARC-Easy_test.csv", "q,a,b,c,d,e,f,A\n", "item 1"),
        ("arc_easy", "arc_easy/ARC-Easy_test.csv", "q,a,,c,d,A\n", "item 1"),
        ("piqa", "piqa/valid-labels.lst", "0\n1\n", "2 labels"),
        ("piqa", "piqa/valid-labels.lst", "0\n1\n-1\n0\n1\n1\n", "item 3"),
        ("piqa", "piqa/valid-labels.lst", "0\n1\n7\n0\n1\n1\n", "item 3"),
        ("piqa", "piqa/valid.jsonl", '{"goal": "x", "sol1": null, "sol2": "b"}\n' * 6, "'sol1' is None"),
        ("piqa", "piqa/valid.jsonl", '{"goal": "x", "sol1": "\\ud83d", "sol2": "b"}\n' * 6, "'sol1'"),
        ("lambada_openai", "lambada/lambada_test.jsonl", '{"text": NaN}\n', "'text' is nan"),
        ("lambada_openai", "lambada/lambada_test.jsonl", '{"text": ["a b"]}\n', "'text' is"),
        (
            "hellaswag",
            "hellaswag/hellaswag_val_part.jsonl",
            '{"query": "a: b", "endings": 5, "label": 0}',
            "'endings'",
        ),
        (
            "hellaswag",
            "hellaswag/hellaswag_val_part.jsonl",
            '{"query": "a: b", "endings": [1, 2], "label": 0}',
            "'endings'",
        ),
        (
            "hellaswag",
            "hellaswag/hellaswag_val_part.jsonl",
            '{"query": "a: b", "endings": ["x"], "label": 1}',
            "label 1",
        ),
        ("piqa", "piqa/valid.jsonl", '{"goal": "x"}\n' * 6, "sol1"),
        ("lambada_openai", "lambada/lambada_test.jsonl", '{"text": "a b"}\n{"text": \n', "item 2"),
        ("lambada_openai", "lambada/lambada_test.jsonl", b"\xff\n", "UTF-8"),
        ("hellaswag", "hellaswag/hellaswag_val_part.jsonl", '{"query": 7}\n', "item 1"),
        ("hellaswag", "hellaswag/hellaswag_val_part.jsonl", json.dumps({"ctx_a": "x"}), "activity_label"),
    ],
)
def test_a_damaged_set_is_refused_with_its_item(tmp_path, task, file, content, says):
    folder = benchmark_folder(tmp_path)
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=says) as refused:
        documents(task, published(task, str(folder)))
    assert "\n" not in str(refused.value)

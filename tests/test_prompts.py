"""Rows of any origin become checked pairs in three splits that share nothing; bad rows are named in one line."""

import csv
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from isentropic.errors import InputError
from isentropic.prompts.builtin import builtin
from isentropic.prompts.load import load_prompts
from isentropic.prompts.preview import prompts_preview, write_prompts
from isentropic.prompts.prompt_set import Prompt, PromptSet

Rows = list[dict[str, Any]]


def pair_rows(n: int = 20, **marks: Any) -> Rows:
    return [
        {"male": f"He owns {i} cats, so he", "female": f"She owns {i} cats, so she", **marks}
        for i in range(n)
    ]


def single_rows(n: int = 20, groups: tuple[str, ...] = ("male", "female"), **marks: Any) -> Rows:
    return [{"prompt": f"A {g} text, {i}", "gender": g, **marks} for i in range(n) for g in groups]


def write(path: Path, rows: Rows) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def splits(prompts: PromptSet) -> dict[str, int]:
    return {name: len(prompts.split(name)) for name in ("train", "validation", "test")}


# --- reading --------------------------------------------------------------------------------------------------


def test_nothing_given_is_the_built_in_gender_set() -> None:
    assert load_prompts() == builtin("gender") == load_prompts("gender")
    assert load_prompts().groups == ("male", "female")


def test_groups_of_a_built_in_set_can_be_chosen_and_ordered() -> None:
    prompts = load_prompts("names", groups=["chinese", "english"])
    assert prompts.groups == ("chinese", "english") and prompts.paired
    assert [p.text for p in prompts.tuples()[0]] == [
        "Wei opened the window and",
        "James opened the window and",
    ]


@pytest.mark.parametrize("ending", [".json", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("rows", [pair_rows(), single_rows(), pair_rows(30, topic="one", split="train")])
def test_every_kind_of_file_gives_the_same_prompts(tmp_path: Path, ending: str, rows: Rows) -> None:
    rows[3] = {**rows[3], next(iter(rows[3])): 'Quoted "text", with a comma\nand a second line 中文, so'}
    expected = load_prompts(write(tmp_path / "rows.jsonl", rows))
    found = load_prompts(write(tmp_path / f"rows{ending}", rows))
    assert found.prompts == expected.prompts and found.groups == expected.groups
    assert found.sha256 == expected.sha256


def test_python_objects_give_the_same_prompts_as_a_file(tmp_path: Path) -> None:
    import datasets

    rows = pair_rows()
    expected = load_prompts(write(tmp_path / "rows.jsonl", rows)).prompts
    data = datasets.Dataset.from_list(rows)
    data.save_to_disk(str(tmp_path / "saved"))
    for source in (rows, data, datasets.DatasetDict(train=data), str(tmp_path / "saved")):
        assert load_prompts(source).prompts == expected


def test_splits_of_a_dataset_dict_are_honoured_and_class_labels_become_names() -> None:
    import datasets

    features = datasets.Features(
        prompt=datasets.Value("string"), gender=datasets.ClassLabel(names=["female", "male"])
    )
    parts = {
        name: datasets.Dataset.from_list(
            [{"prompt": f"{name} {g} {i}", "gender": g} for i in range(20) for g in (0, 1)], features=features
        )
        for name in ("train", "test")
    }
    prompts = load_prompts(datasets.DatasetDict(parts))
    assert prompts.counts() == {"male": 40, "female": 40}
    assert all(p.text.startswith("test 1") for p in prompts.split("test").prompts if p.group == "male")
    assert splits(prompts) == {"train": 30, "validation": 10, "test": 40}


@pytest.mark.parametrize(
    "names", [("m", "f"), ("M", "W"), ("Male", "FEMALE"), ("man", "woman"), ("男", "女")]
)
def test_gender_synonyms(names: tuple[str, str]) -> None:
    prompts = load_prompts(single_rows(groups=names))
    assert prompts.groups == ("male", "female")
    assert {p.group for p in prompts.prompts if p.text.startswith(f"A {names[0]} ")} == {"male"}


def test_columns_can_be_named() -> None:
    rows = [{"he_text": r["male"], "she_text": r["female"], "text": "same"} for r in pair_rows()]
    named = load_prompts(rows, male_column="he_text", female_column="she_text")
    assert [p.text for p in named.prompts] == [p.text for p in load_prompts(pair_rows()).prompts]
    rows = [{"question": r["prompt"], "who": r["gender"]} for r in single_rows()]
    singles = load_prompts(rows, text_column="question", group_column="who")
    assert singles.prompts == load_prompts(single_rows()).prompts


def test_any_group_names_and_intersections() -> None:
    rows = [
        {"text": f"{g} {a} {i}", "gender": g, "age": a}
        for i in range(4)
        for g in ("m", "f")
        for a in ("young", "old")
    ]
    prompts = load_prompts(rows, group_column="gender, age")
    assert prompts.groups == ("female+old", "female+young", "male+old", "male+young")
    assert {p.group for p in prompts.prompts if p.text.startswith("f old")} == {"female+old"}
    assert load_prompts(rows, group_column="age").groups == ("old", "young")


def test_chosen_groups_leave_the_others_out_and_say_so() -> None:
    prompts = load_prompts(single_rows(groups=("a", "b", "c")), groups=("c", "a"))
    assert prompts.groups == ("c", "a") and prompts.counts() == {"c": 20, "a": 20}
    assert any(note.startswith("20 rows of other groups") for note in prompts.notes)


def test_one_column_a_group() -> None:
    rows = [{"x": f"x {i}", "y": f"y {i}", "z": f"z {i}"} for i in range(20)]
    prompts = load_prompts(rows, groups=("z", "x", "y"))
    assert [p.text for p in prompts.tuples()[4]] == ["z 4", "x 4", "y 4"]


def test_twins_by_pair_id_become_tuples_and_incomplete_ones_are_left_out() -> None:
    rows = [
        {"prompt": f"{g} {i}", "group": g, "pair_id": i}
        for g in ("male", "female", "neutral")
        for i in range(20)
    ]
    prompts = load_prompts(rows[:-1], group_column="group")
    assert prompts.paired and len(prompts.tuples()) == 19
    assert [p.text for p in prompts.tuples()[7]] == ["male 7", "female 7", "neutral 7"]
    assert "2 prompts whose pair lacks a group left out: rows 20, 40" in prompts.notes


def test_a_space_at_the_end_is_taken_off() -> None:
    rows = [{"male": r["male"] + " \n", "female": r["female"] + " "} for r in pair_rows()]
    assert load_prompts(rows).prompts == load_prompts(pair_rows()).prompts


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", pair_rows())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_prompts(path).paired


def test_rows_are_named_by_the_line_they_start_on(tmp_path: Path) -> None:
    rows = pair_rows(3)
    rows[0]["male"] = "Two\nlines"
    prompts = load_prompts(write(tmp_path / "rows.csv", rows))
    assert [p.row for p in prompts.prompts if p.group == "male"] == [2, 4, 5]


# --- splitting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [pair_rows(100), single_rows(100)])
def test_splits_are_cut_in_the_given_shares(rows: Rows) -> None:
    prompts = load_prompts(rows)
    assert splits(prompts) == {"train": 120, "validation": 30, "test": 50}
    for name in splits(prompts):
        assert len(set(prompts.split(name).counts().values())) == 1
    assert splits(load_prompts(rows, split_fractions=(0.5, 0.25, 0.25))) == {
        "train": 100,
        "validation": 50,
        "test": 50,
    }


@pytest.mark.parametrize(
    "rows",
    [pair_rows(60), single_rows(60), [r | {"topic": str(i % 15)} for i, r in enumerate(pair_rows(60))]],
)
def test_the_split_does_not_depend_on_the_order_of_the_rows_but_on_the_seed(rows: Rows) -> None:
    shuffled = random.Random(7).sample(rows, len(rows))
    assert set(load_prompts(shuffled).prompts) == set(load_prompts(rows).prompts)
    assert set(load_prompts(rows, seed=1).prompts) != set(load_prompts(rows).prompts)


def test_pairs_are_never_parted() -> None:
    rows = [{"prompt": f"{g} {i}", "gender": g, "pair_id": i} for g in ("male", "female") for i in range(40)]
    for twins in load_prompts(rows).tuples():
        assert len({p.split for p in twins}) == 1


@pytest.mark.parametrize("make", [pair_rows, single_rows])
@pytest.mark.parametrize(("topics", "whole"), [(15, True), (11, False)])
def test_whole_topics_move_together_from_twelve_topics_on(make: Any, topics: int, whole: bool) -> None:
    rows = [row | {"topic": f"topic {i // 2 % topics}"} for i, row in enumerate(make(150))]
    prompts = load_prompts(rows)
    found = {(p.topic, p.split) for p in prompts.prompts}
    assert (len(found) == topics) is whole
    assert any("whole topics" in note for note in prompts.notes) is whole


def test_one_topic_that_holds_most_rows_does_not_become_the_test_set() -> None:
    rows = [row | {"topic": str(max(0, i - 80))} for i, row in enumerate(pair_rows(100))]
    assert splits(load_prompts(rows)) == {"train": 120, "validation": 30, "test": 50}


def test_marked_splits_stay_and_validation_is_cut_from_train_alone() -> None:
    rows = [r | {"split": "train" if i < 100 else "eval"} for i, r in enumerate(pair_rows(140))]
    prompts = load_prompts(rows)
    assert splits(prompts) == {"train": 160, "validation": 40, "test": 80}
    assert {p.row for p in prompts.split("test").prompts} == set(range(101, 141))


def test_all_marked_splits_are_left_alone() -> None:
    names = ["train", "dev", "heldout"]
    rows = [r | {"split": names[i % 3]} for i, r in enumerate(pair_rows(30))]
    assert splits(load_prompts(rows)) == {"train": 20, "validation": 20, "test": 20}


def test_a_test_file_alone_stays_a_test_set() -> None:
    assert splits(load_prompts(pair_rows(30, split="test"))) == {"train": 0, "validation": 0, "test": 60}


def test_a_pair_in_train_and_test_is_dropped_from_train() -> None:
    rows = pair_rows(30, split="train") + pair_rows(10, split="test") + pair_rows(2, split="test")
    prompts = load_prompts(rows)
    assert sum(splits(prompts).values()) == 60 and splits(prompts)["test"] == 20
    assert any(
        note.startswith("10 pairs of train that stand in test too left out: rows 1,")
        for note in prompts.notes
    )
    assert any(
        note.startswith("2 pairs that stand there twice left out: rows 41, 42") for note in prompts.notes
    )


def test_a_small_set_keeps_pairs_to_train_on() -> None:
    for n in range(3, 12):
        found = splits(load_prompts(pair_rows(n)))
        assert all(found.values()) and 3 * found["train"] >= 2 * n


# --- the set --------------------------------------------------------------------------------------------------


def test_tuples_come_in_the_order_of_the_groups() -> None:
    prompts = [Prompt("She", "female", "1"), Prompt("He", "male", "1")]
    both = PromptSet(tuple(prompts), ("male", "female"), "two")
    assert both.tuples() == [(prompts[1], prompts[0])]
    assert not PromptSet(tuple(prompts[:1]), ("male", "female"), "one").paired
    assert not PromptSet((*prompts, prompts[0]), ("male", "female"), "three").paired
    with pytest.raises(InputError, match="not paired"):
        PromptSet(tuple(prompts[:1]), ("male", "female"), "one").tuples()


def test_the_hash_changes_with_the_content_and_not_with_the_place() -> None:
    rows = pair_rows()
    hashes = {
        load_prompts(rows).sha256,
        load_prompts(rows, seed=1).sha256,
        load_prompts(rows[:-1]).sha256,
        load_prompts([*rows[:-1], {"male": "He,", "female": "She,"}]).sha256,
        load_prompts(rows, groups=("female", "male")).sha256,
    }
    assert len(hashes) == 5
    assert load_prompts([{**row, "note": "unused"} for row in rows]).sha256 in hashes


def test_ratio_line() -> None:
    assert load_prompts(pair_rows(30)).ratio_line() == "男女比例 / male:female = 30:30"
    assert builtin("age").ratio_line() == "young:middle-aged:old = 588:588:588"


@pytest.mark.parametrize("name", ["gender", "gender_neutral", "names", "pairs", "singles"])
def test_written_prompts_read_back_the_same(tmp_path: Path, name: str) -> None:
    prompts = {
        "gender": builtin(),
        "gender_neutral": builtin("gender_neutral"),
        "names": builtin("names", ["english", "arabic", "hispanic"]),
        "pairs": load_prompts(pair_rows()),
        "singles": load_prompts(single_rows()),
    }[name]
    groups = None if set(prompts.groups) == {"male", "female"} else prompts.groups
    again = load_prompts(write_prompts(prompts, tmp_path / "new" / "prompts.jsonl"), groups=groups)
    assert again.sha256 == prompts.sha256
    with pytest.raises(InputError, match="exists"):
        write_prompts(prompts, tmp_path / "new" / "prompts.jsonl")


def test_preview_is_plain_json_and_counts_everything() -> None:
    preview = prompts_preview(load_prompts(pair_rows()))
    assert json.loads(json.dumps(preview)) == preview
    assert sum(n for counts in preview["splits"].values() for n in counts.values()) == 40
    assert len(preview["examples"]) == 6


def test_importing_prompts_is_free_of_heavy_libraries() -> None:
    import subprocess
    import sys

    code = (
        "import sys, isentropic.prompts as p; p.load_prompts();"
        "sys.exit(bool({'torch', 'datasets', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- unmarked text --------------------------------------------------------------------------------------------


def test_groups_are_read_from_the_words_of_unmarked_text() -> None:
    texts = [
        f"My {who} has {i} cats. {pronoun}"
        for i in range(10)
        for who, pronoun in (("brother", "He"), ("sister", "She"))
    ]
    rows = [{"text": text} for text in [*texts, "It rains", "He met her"]]
    prompts = load_prompts(rows)
    assert prompts.counts() == {"male": 10, "female": 10}
    assert all(("brother" in p.text) == (p.group == "male") for p in prompts.prompts)
    assert "groups read from the words: 10 male, 10 female, 1 both, 1 none" in prompts.notes
    assert "1 texts with none left out: row 21" in prompts.notes
    assert "1 texts with both left out: row 22" in prompts.notes


def test_the_swap_writes_the_missing_twins() -> None:
    rows = [{"text": f"He has {i} cats, and he"} for i in range(20)]
    prompts = load_prompts(rows, swap=True)
    assert prompts.paired and prompts.counts() == {"male": 20, "female": 20}
    assert [p.text for p in prompts.tuples()[3]] == ["He has 3 cats, and he", "She has 3 cats, and she"]


def test_what_the_swap_flags_is_left_out_by_reason() -> None:
    rows = [{"text": f"He has {i} cats, and he", "gender": "m"} for i in range(20)]
    rows[4]["text"], rows[7]["text"] = "She is pregnant with 4 cats, so she", "Cats have nine lives and"
    prompts = load_prompts(rows, swap=True)
    assert prompts.paired and len(prompts.tuples()) == 18
    assert "1 left out by the swap (biology): row 5" in prompts.notes
    assert "1 left out by the swap (nothing to swap): row 8" in prompts.notes


def test_a_swap_of_ones_own_can_be_given() -> None:
    from types import SimpleNamespace

    def shout(text: str) -> SimpleNamespace:
        return SimpleNamespace(text=text.upper(), flagged=None)

    rows = [{"text": f"he {i}", "gender": "m"} for i in range(20)]
    assert [p.text for p in load_prompts(rows, swap=shout).tuples()[3]] == ["he 3", "HE 3"]


# --- bad input ------------------------------------------------------------------------------------------------


def line(row: object) -> str:
    return json.dumps(row) + "\n"


GOOD = "".join(line(row) for row in pair_rows(2))
SINGLES = "".join(line(row) for row in single_rows(2))


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["is empty"]),
        ("\n\n", ["is empty"]),
        (GOOD + "\n{broken\n", ["line 4", "JSON"]),
        (GOOD + "[1, 2]\n", ["line 3", "a list"]),
        (line({"a": "x", "b": "y"}), ["'a', 'b'", "text_column"]),
        (GOOD + line({"male": "He"}), ["line 3", "'female'"]),
        (GOOD + line({"male": "He", "female": "  "}), ["line 3", "'female'"]),
        (GOOD + line({"male": None, "female": "She"}), ["line 3", "'male'"]),
        (GOOD + '{"male": NaN, "female": "She"}\n', ["line 3", "'male'"]),
        (GOOD + line({"male": 5, "female": "She"}), ["line 3", "5"]),
        (GOOD + line({"male": "Same", "female": "Same"}), ["line 3", "'Same'", "identical"]),
        (GOOD + line(pair_rows()[5] | {"split": "holdout9"}), ["line 1", "split"]),
        (line(pair_rows()[0]), ["'male'", "has 1 prompt;"]),
        (SINGLES + line({"prompt": "It", "gender": "robot"}), ["line 5", "'robot'", "'gender'"]),
        (SINGLES + line({"prompt": "It", "gender": ""}), ["line 5", "'gender'"]),
        (SINGLES + line({"prompt": "", "gender": "male"}), ["line 5", "'prompt'"]),
        ("".join(line(r) for r in single_rows(3, ("male",))), ["one group only", "'male'"]),
        (SINGLES + line({"prompt": "x", "gender": "male", "pair_id": "1"}), ["line 1", "pair_id"]),
        (
            "".join(line(r | {"pair_id": i // 2}) for i, r in enumerate(single_rows(2)))
            + line({"prompt": "again", "gender": "male", "pair_id": 1}),
            ["line 5", "'1'", "line 3"],
        ),
        (
            "".join(line(r | {"pair_id": i}) for i, r in enumerate(single_rows(2))),
            ["no pair_id", "'male', 'female'"],
        ),
        (
            "".join(line({"prompt": "x", "gender": g, "pair_id": 1}) for g in "mf") + SINGLES,
            ["line 3", "pair_id"],
        ),
        (
            "".join(line({"prompt": "x", "gender": g, "pair_id": i}) for i in range(2) for g in "mf"),
            ["line 2", "'x'", "identical"],
        ),
        (
            "".join(
                line({"prompt": f"{g} {i}", "gender": g, "pair_id": i, "split": s})
                for i in range(2)
                for g, s in (("m", "train"), ("f", "test"))
            ),
            ["line 2", "'0'", "split"],
        ),
        (GOOD.replace("}", ', "pair_id": "p"}'), ["line 2", "'p'", "line 1"]),
        (
            SINGLES.replace("}", ', "split": "train"}') + line(single_rows()[9] | {"split": "test"}),
            ["split test"],
        ),
    ],
)
def test_bad_rows_are_named_in_one_line(tmp_path: Path, content: str, parts: list[str]) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_prompts(path)
    message = str(error.value)
    assert "\n" not in message and "bad.jsonl" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("rows.csv", b"male,female\nHe,She\nHe has,She has,It has\n", ["line 3", "3 cells", "2 columns"]),
        ("rows.csv", b'male,female\nHe,She\n"He has,She has\n', ["line 3", "CSV"]),
        ("rows.csv", b"male,female\nHe,She\nHe,\n", ["line 3", "'female'"]),
        ("rows.csv", b"male,female\nHe,She\nHe,nan\n", ["line 3", "'female'"]),
        ("rows.csv", b"male,male\nHe,She\n", ["line 1", "'male'", "twice"]),
        ("rows.csv", b"male,female\n", ["empty"]),
        ("rows.csv", b"male,female\nHe,She\nHe,\xff\n", ["line 3", "0xff", "UTF-8"]),
        ("rows.jsonl", '{"male": "He"}\n{"male": "é"}'.encode("latin-1"), ["line 2", "0xe9", "UTF-8"]),
        ("rows.json", b'{"male": "He", "female": "She"}', ["an object", "list"]),
        ("rows.json", b'[{"male": "He"},\n {"male" "He"}]', ["line 2", "JSON"]),
        ("rows.json", b'[{"male": "He"}, 7]', ["row 2", "a number"]),
        ("rows.parquet", b"PAR1 and then nothing", ["Parquet"]),
        ("rows.xlsx", b"x", [".xlsx", ".parquet"]),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path: Path, name: str, content: bytes, parts: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        load_prompts(tmp_path / name)
    message = str(error.value)
    assert "\n" not in message and name in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"source": "missing.jsonl"}, ["missing.jsonl", "does not exist"]),
        ({"source": "folder/missing.csv"}, ["missing.csv", "does not exist"]),
        ({"source": "gander"}, ["'gander'", "'gender'"]),
        ({"source": []}, ["empty"]),
        ({"source": [1]}, ["row 1", "a number"]),
        ({"source": 5}, ["a number"]),
        ({"source": pair_rows(), "text_column": "txt"}, ["'txt'", "'male', 'female'"]),
        ({"source": pair_rows(), "male_column": "him"}, ["'him'", "'male', 'female'"]),
        ({"source": single_rows(), "group_column": "gender,age"}, ["'age'", "'prompt', 'gender'"]),
        ({"source": single_rows(), "groups": ["male", "robot"]}, ["'male'", "one group only"]),
        ({"source": single_rows(), "groups": ["x", "y"]}, ["no row to use"]),
        ({"source": pair_rows(), "groups": ["male"]}, ["'male'", "two or more"]),
        ({"source": None, "groups": ["male", "robot"]}, ["'robot'", "'male', 'female'"]),
        (
            {"source": [*single_rows(3), {"prompt": "x", "gender": "other"}], "group_column": "gender"},
            ["'other'", "1 prompt"],
        ),
        (
            {"source": single_rows(groups=("a", "b")), "group_column": "gender", "swap": True},
            ["row 1", "'a'", "swap"],
        ),
        ({"source": [{"text": "It rains"}] * 3}, ["no row to use", "3 none"]),
    ],
)
def test_bad_arguments_are_named_in_one_line(arguments: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(InputError) as error:
        load_prompts(**arguments)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_hub_id_that_cannot_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as error:
        load_prompts("no-such-owner/no-such-set")
    assert "no-such-owner/no-such-set" in str(error.value) and "\n" not in str(error.value)


# --- real problems --------------------------------------------------------------------------------------------


@pytest.fixture
def gsm8k() -> Path:
    folder = os.environ.get("ISENTROPIC_BENCHMARKS")
    if not folder:
        pytest.skip("ISENTROPIC_BENCHMARKS names no folder")
    return Path(folder) / "gsm8k"


def test_gsm8k_pairs(gsm8k: Path) -> None:
    prompts = load_prompts(gsm8k / "train_gender_pairs.jsonl")
    assert prompts.paired and prompts.counts() == {"male": 902, "female": 902}
    assert splits(prompts) == {"train": 2 * 585, "validation": 2 * 146, "test": 2 * 171}


def test_gsm8k_gendered(gsm8k: Path) -> None:
    prompts = load_prompts(gsm8k / "train_gendered.jsonl", text_column="question")
    assert not prompts.paired and prompts.counts() == {"male": 1913, "female": 1913}
    assert Counter(p.split for p in prompts.prompts)["test"] == 757


def test_what_is_written_of_any_groups_is_read_back(tmp_path):
    """Three groups of a built-in set: the same twins, splits and cells."""
    prompts = builtin("age")
    again = load_prompts(str(write_prompts(prompts, tmp_path / "age.jsonl")), group_column="group")
    assert set(again.prompts) == set(prompts.prompts) and set(again.groups) == set(prompts.groups)
    assert again.paired


def test_texts_in_another_script_are_left_out_and_counted():
    texts = [*(f"He has {n} pens." for n in range(6)), *(f"She has {n} pens." for n in range(6))]
    notes = load_prompts(
        [{"text": t} for t in [*texts, "Two trains leave.", "她有两本书", "Он купил хлеб"]]
    ).notes
    assert "1 texts with none left out: row 13" in notes
    assert "2 texts with none, in a script that is not read, left out: rows 14, 15" in notes

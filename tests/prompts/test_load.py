"""Rows of any origin become checked pairs in three splits that share nothing; bad rows are named in one line."""

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from isentropic.errors import InputError
from isentropic.prompts.builtin import builtin
from isentropic.prompts.load import load_prompts
from isentropic.prompts.preview import write_prompts
from tiny import Rows, pair_rows, single_rows, splits, write

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


# --- files as they come -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rows.csv", lambda text: text.replace("\n", ",,,\n")),  # empty columns
        ("rows.csv", lambda text: text.replace("female\n", "female,,\n")),
        ("rows.csv", lambda text: text.replace("she\n", "she,,\n")),
        ("rows.csv", lambda text: "sep=,\r\n" + text),
        ("rows.csv", lambda text: "sep=;\n" + re.sub('(?<=["e]),(?=["f])', ";", text)),
        ("rows.csv", lambda text: '"sep=\t"\n' + re.sub('(?<=["e]),(?=["f])', "\t", text)),
        ("rows.csv", lambda text: re.sub('(?<=["e]),(?=["f])', ";", text)),
        (
            "rows.csv",
            lambda text: re.sub('(?<=["e]),(?=["f])', "|", text).replace("male|female", '"male"|"female"'),
        ),
        ("rows.tsv", lambda text: text),
        ("rows.csv", lambda text: "\ufeff" + text.replace("\n", "\r\n")),
    ],
)
def test_spreadsheet_exports_are_read(tmp_path: Path, name: str, change: Any) -> None:
    text = write(tmp_path / "plain.csv", pair_rows()).read_text()
    (tmp_path / name).write_text(change(text), encoding="utf-8", newline="")
    assert load_prompts(tmp_path / name).sha256 == load_prompts(pair_rows()).sha256


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    rows = [{column: text + " x" * 70_000 for column, text in row.items()} for row in pair_rows()]
    before = csv.field_size_limit()
    assert load_prompts(write(tmp_path / "long.csv", rows)).sha256 == load_prompts(rows).sha256
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_named_jsonl_is_read(tmp_path: Path, indent: int | None) -> None:
    (tmp_path / "rows.jsonl").write_text("\n" + json.dumps(pair_rows(), indent=indent), encoding="utf-8")
    assert load_prompts(tmp_path / "rows.jsonl").sha256 == load_prompts(pair_rows()).sha256


def test_tables_in_memory_are_read() -> None:
    import pandas
    import pyarrow

    expected = load_prompts(pair_rows(topic=None)).sha256
    columns = {name: [row[name] for row in pair_rows()] for name in ("male", "female")}
    for table in (columns, pyarrow.table(columns), pyarrow.Table.from_pylist(pair_rows()).to_batches()[0]):
        assert load_prompts(table).sha256 == expected
    frame = pandas.DataFrame(pair_rows(topic=pandas.NA))
    assert load_prompts(frame).sha256 == load_prompts(frame.convert_dtypes()).sha256 == expected


@pytest.mark.parametrize(
    "features",
    ['{"messages": [{"content": "x"}]}', '{"prompt": ["x"], "gender": "male"}', '{"prompt": {"a": 1}}'],
)
def test_a_column_of_lists_is_named(tmp_path: Path, features: str) -> None:
    import datasets

    rows = [json.loads(features)] * 4
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    for source in (rows, tmp_path / "saved", write(tmp_path / "rows.parquet", rows)):
        with pytest.raises(InputError, match=r"'messages'|'prompt' holds (a list|an object).*--chat"):
            load_prompts(source)


@pytest.mark.parametrize("lost", ["data-00000-of-00001.arrow", "state.json", "dataset_info.json"])
def test_a_data_set_saved_in_part_is_one_line(tmp_path: Path, lost: str) -> None:
    import datasets

    datasets.Dataset.from_list(pair_rows()).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / lost).write_bytes(b"")
    with pytest.raises(InputError, match="saved"):
        load_prompts(tmp_path / "saved")


def test_words_for_nothing_are_words() -> None:
    rows = [
        {"prompt": word, "gender": g, "topic": "None", "pair_id": n}
        for n, pair in enumerate([("None", "null"), ("nan", "NaN")])
        for word, g in zip(pair, ("male", "female"), strict=True)
    ]
    prompts = load_prompts(rows)
    assert [p.text for p in prompts.prompts] == ["None", "null", "nan", "NaN"]
    assert {p.topic for p in prompts.prompts} == {"None"}


@pytest.mark.parametrize("ids", [(1.0, 1), (1, "1"), (2.0, "2")])
def test_numbers_that_are_equal_name_one_pair(ids: tuple[Any, Any]) -> None:
    rows = [{"prompt": f"{g} {n}", "gender": g, "pair_id": ids[g == "f"]} for n, g in enumerate("mf")]
    more = [{"prompt": f"{g} {n}", "gender": g, "pair_id": n} for n in (7, 8) for g in "mf"]
    assert load_prompts(rows + more).paired


@pytest.mark.parametrize("split", [None, float("nan"), " "])
def test_a_split_column_without_a_word_is_as_none(split: object) -> None:
    assert splits(load_prompts(pair_rows(split=split))) == splits(load_prompts(pair_rows()))


def test_rows_without_a_split_beside_marked_ones_are_cut_or_train() -> None:
    rows = pair_rows()
    for i, name in enumerate(["test"] * 4 + ["validation"] * 4):
        rows[i]["split"] = name
    assert splits(load_prompts(rows)) == {"train": 24, "validation": 8, "test": 8}
    marked = load_prompts([row | {"split": row.get("split") or "train"} for row in rows])
    assert load_prompts(rows).sha256 == marked.sha256


@pytest.mark.parametrize("column", ["male", "topic", "pair_id", "split", "cell"])
@pytest.mark.parametrize("half", ["\ud83d", "a\udc00b"])
def test_half_a_character_is_named(tmp_path: Path, column: str, half: str) -> None:
    rows = pair_rows()
    rows[3][column] = half
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(line(row) for row in rows), encoding="utf-8")
    with pytest.raises(InputError, match=f"line 4: '{column}' contains half a character"):
        load_prompts(path)


def test_half_a_character_in_a_group_is_named() -> None:
    with pytest.raises(InputError, match="half a character"):
        load_prompts(single_rows(groups=("a", "b\ud800")), group_column="gender")
    with pytest.raises(InputError, match="half a character"):
        load_prompts([{"a": f"{i} a", "b\ud800": f"{i} b"} for i in range(9)], groups=["a", "b\ud800"])


# --- texts that look alike ----------------------------------------------------------------------------------------

ALIKE = [
    ("caf\u00e9", "cafe\u0301"),
    ("\ud55c", "\u1112\u1161\u11ab"),
    ("he\u200b", "he"),
    ("\ufeffhe", "he"),
    ("h\u00ade", "he"),
    ("he\u2060 is", "he is"),
    ("he is", "he\u00a0is"),
    ("he\u202e", "he"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_twins_that_look_alike_are_left_out_and_counted(one: str, other: str) -> None:
    prompts = load_prompts([*pair_rows(), {"male": one, "female": other}])
    assert len(prompts) == 40 and any("1 rows" in note and "row 21" in note for note in prompts.notes)
    singles = [*single_rows(pair_id=None)]
    for i, row in enumerate(singles):
        row["pair_id"] = str(i // 2)
    strange = [
        {"prompt": one, "gender": "male", "pair_id": "x"},
        {"prompt": other, "gender": "female", "pair_id": "x"},
    ]
    assert len(load_prompts(singles + strange)) == 40
    with pytest.raises(InputError, match="no pair to use"):
        load_prompts([{"male": one, "female": other}] * 4)


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_copies_that_look_alike_are_never_in_train_and_test(one: str, other: str) -> None:
    def copies(text: str, split: str) -> Rows:
        return [
            {"male": f"he {n} {text}", "female": f"she {n} {text}", "split": split, "pair_id": f"{split}{n}"}
            for n in range(9)
        ]

    prompts = load_prompts([*copies(one, "train"), *copies(other, "test"), *pair_rows(split="train")])
    assert splits(prompts)["test"] == 18 and splits(prompts)["train"] + splits(prompts)["validation"] == 40
    assert any("9 pairs of train" in note for note in prompts.notes)


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
        (GOOD + line(pair_rows()[5] | {"split": "holdout9"}), ["line 3", "holdout9", "split"]),
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
        ("rows.csv", b"male;female\nHe;She\nHe;has;She\n", ["line 3", "3 cells", "semicolons"]),
        ("rows.jsonl", b'{"male": ' + b"[" * 9999, ["line 1", "deeply"]),
        ("rows.jsonl", b'{"male": ' + b"9" * 5000 + b"}", ["line 1", "4300 digits"]),
        ("rows.json", b"[" * 9999, ["deeply"]),
        ("rows.jsonl", b'{\n "male": "He",\n "female": "She"\n}\n', ["line 1", "on one line"]),
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
        ({"source": "x" * 300}, ["xxx", "neither a file nor"]),
        ({"source": "x" * 300 + ".csv"}, ["xxx", "does not exist"]),
        ({"source": ""}, ["''", "does not exist"]),
        ({"source": []}, ["empty"]),
        ({"source": {"male": "He", "female": "She"}}, ["an object", "list"]),
        ({"source": {"male": ["He"], "female": []}}, ["male 1, female 0"]),
        ({"source": [row | {"topic": ["a"]} for row in pair_rows()]}, ["row 1", "'topic' holds a list"]),
        ({"source": [row | {"pair_id": 10**5000} for row in pair_rows()]}, ["row 1", "'pair_id'", "4300"]),
        ({"source": [row | {"male": 10**5000} for row in pair_rows()]}, ["row 1", "'male'", "too large"]),
        ({"source": [1]}, ["row 1", "a number"]),
        ({"source": 5}, ["a number"]),
        ({"source": pair_rows(), "text_column": "txt"}, ["'txt'", "'male', 'female'"]),
        ({"source": pair_rows(), "male_column": "him"}, ["'him'", "'male', 'female'"]),
        ({"source": single_rows(), "group_column": "gender,age"}, ["'age'", "'prompt', 'gender'"]),
        ({"source": single_rows(), "groups": ["male", "robot"]}, ["'male'", "one group only"]),
        ({"source": single_rows(), "groups": ["x", "y"]}, ["'x', 'y'", "only of 'male', 'female'"]),
        ({"source": pair_rows(), "groups": ["male", "robot"]}, ["no column 'robot'", "'male', 'female'"]),
        ({"source": pair_rows(), "groups": []}, ["none", "two or more"]),
        ({"source": single_rows(), "group_column": ""}, ["no column ''"]),
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
def gsm8k(public_sets: Path) -> Path:
    return public_sets / "gsm8k"


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

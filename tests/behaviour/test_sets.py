"""Files of the public test sets, made up and real, to items; what is damaged is named with its line."""

import json
import shutil

import pytest

from isentropic.behaviour import SETS, read_sets
from isentropic.behaviour.sets import in_gender
from isentropic.behaviour.source import as_in_file, bracketed
from isentropic.errors import InputError
from tiny import JOBS


@pytest.fixture
def folder(benchmarks, tmp_path):
    return shutil.copytree(benchmarks, tmp_path / "sets")


def items_of(folder, name):
    (one,) = read_sets(str(folder), name)
    return one.items


def test_items_of_each_set(benchmarks):
    job = JOBS[0]
    first = {
        "crows_pairs": (f"The {job} is a man.", f"The {job} is an old man."),
        "winobias_type1": tuple(f"The {job} told the cook that {word} is late." for word in ("she", "he")),
        "winogender": tuple(f"The {job} told the guest that {word} is late." for word in ("he", "she")),
        "use_5": (f"He is a {job}.", f"She is a {job}."),
        "bbq": (" The man", " The woman", " Unknown"),
    }
    for name, texts in first.items():
        assert items_of(benchmarks, name)[0].texts == texts
    assert len(items_of(benchmarks, "crows_pairs")) == 4
    assert len(items_of(benchmarks, "crows_pairs_gender")) == 3
    # The part of StereoSet about gender alone: the first of the tests is about race.
    tests = items_of(benchmarks, "stereoset")
    assert len(tests) == 7 and tests[0].texts[0] == f"The sad {JOBS[1]} told me."
    clusters = {"crows_pairs": "a0", "winobias_type1": job, "winogender": job, "use_5": job, "bbq": "0"}
    assert {name: items_of(benchmarks, name)[0].cluster for name in clusters} == clusters
    # 2 is "unknown", which is right where the context is ambiguous; else the stereotyped person is.
    assert [item.answer for item in items_of(benchmarks, "bbq")[:2]] == [2, 1]


def test_all_sets_that_are_there_are_read_and_the_others_passed_over(benchmarks):
    there = [one.name for one in read_sets(str(benchmarks))]
    assert set(SETS) - set(there) == {"crows_pairs_revised_gender", "use_10", "use_20"}


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("crows_pairs/crows_pairs_anonymized.csv", "1,The", ",The", None),
        ("crows_pairs/crows_pairs_anonymized.csv", "The pilot is an old man.", "", "line 3: 'sent_more' is ''"),
        ("crows_pairs/crows_pairs_anonymized.csv", "1,The", '1,"The', "line 3"),
        ("crows_pairs/crows_pairs_anonymized.csv", "sent_less", "less", "has no column 'sent_less'"),
        ("winobias/pro_stereotyped_type1.txt.dev", "[The baker]", "The baker", "line 3: '3 The baker"),
        ("winobias/pro_stereotyped_type1.txt.dev", "4 [The clerk] told the cook that [he] is late.\n", "", "3"),
        ("winogender/all_sentences.tsv", "pilot.guest.0.male.txt", "pilot.male.txt", "sentid 'pilot.male.txt'"),
        ("winogender/all_sentences.tsv", "pilot.guest.0.female", "pilot.guest.0.femal", "no female sentence"),
        ("winogender/all_sentences.tsv", "pilot.guest.1.male", "pilot.guest.0.male", "there before with another"),
        ("stereoset/dev.gender.json", '"gold_label": "stereotype"', '"gold_label": "x"', "no sentence for each"),
        ("stereoset/dev.gender.json", '"gold_label": "stereotype"', '"gold_label": ["x"]', "no sentence for each"),
        ("stereoset/dev.gender.json", '"intrasentence": [', '"intrasentence": [7, ', "dev.gender.json row 1"),
        ("stereoset/dev.gender.json", '"intrasentence"', '"intra"', "no data.intrasentence"),
        ("stereoset/dev.gender.json", '"version"', "version", "line 1"),
        ("unstereoeval/USE-5.csv", "{pronoun} is a pilot.", "", "line 3: 'template'"),
        ("bbq/Gender_identity.jsonl", '"label": 2', '"label": 7', "line 2: 'answer_info', 'label'"),
        ("bbq/Gender_identity.jsonl", '["Unknown", "unknown"]', "7", "line 1: 'answer_info', 'label'"),
        ("bbq/Gender_identity.jsonl", '"question_index": "0"', '"question_index": 0.5', "line 1: 'question_index' is 0.5"),
        ("bbq/Gender_identity.jsonl", '["F"]}}', '["F"]}', "line 1: not valid JSON"),
        ("bbq/Gender_identity.jsonl", '"The man"', '"\\ud83d"', "line 1: 'ans0'"),
        ("bbq/Gender_identity.jsonl", '"label": 2', '"label": 1', "no questions on women and men of one"),
        ("bbq/additional_metadata.Gender_identity.csv", "Gender_identity,1,3,2\n", "", "line 4"),
    ],
)  # fmt: skip
def test_a_damaged_line_is_named(folder, file, old, new, words):
    path = folder / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    if words is None:  # not needed, so not missed
        assert read_sets(str(folder))
        return
    with pytest.raises(InputError, match=file.rpartition("/")[2].split(".")[0]) as caught:
        read_sets(str(folder))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_question_without_an_index_is_damaged_even_if_no_row_has_one(folder):
    for file in (folder / "bbq").iterdir():
        file.write_text(file.read_text().replace("question_index", "index"))
    with pytest.raises(InputError, match="'question_index'"):
        read_sets(str(folder))


def test_items_whose_sides_are_the_same_text_say_nothing_and_are_left_out(folder):
    path = folder / "winobias" / "anti_stereotyped_type1.txt.dev"
    path.write_text(path.read_text().replace("[she]", "[he]", 1))
    (one,) = read_sets(str(folder), "winobias_type1")
    assert len(one.items) == 3 and one.notes == ["1 items have the same text on two sides and are left out"]
    path.write_text(path.read_text().replace("[she]", "[he]"))  # one file in place of both
    with pytest.raises(
        InputError, match="0 items of winobias_type1.*4 items have the same text on two sides"
    ):
        read_sets(str(folder))


def test_a_link_to_nowhere_is_one_line(folder):
    file = folder / "stereoset" / "dev.gender.json"
    file.unlink()
    file.symlink_to("nowhere.json")
    with pytest.raises(InputError, match="dev.gender.json"):
        read_sets(str(folder), "stereoset")


def test_bytes_that_are_no_text_are_named(folder):
    path = folder / "winobias" / "anti_stereotyped_type2.txt.dev"
    path.write_bytes(path.read_bytes().replace(b"2 [", b"2 \xff["))
    with pytest.raises(InputError, match="anti_stereotyped_type2.txt.dev line 2"):
        read_sets(str(folder))


def test_lines_that_differ_in_more_than_pronouns_are_left_out_and_counted(folder):
    path = folder / "winobias" / "anti_stereotyped_type1.txt.dev"
    path.write_text(path.read_text().replace("pilot] told the cook", "pilot] asked the cook"))
    (one,) = read_sets(str(folder), "winobias_type1")
    assert len(one.items) == 3 and one.notes == [
        "1 items differ in more than their pronouns and are left out"
    ]


def test_a_set_without_a_licence_is_named_and_read_all_the_same(folder):
    (folder / "winogender" / "LICENSE").unlink()
    found = {one.name: one.notes for one in read_sets(str(folder))}
    assert (
        "has no licence or notice file" in found["winogender"][0] and "winogender" in found["winogender"][0]
    )
    assert found["stereoset"] == []


def test_folders_without_sets_and_names_of_none(benchmarks, tmp_path):
    for place, names, words in (
        (tmp_path, None, "winogender/all_sentences.tsv"),
        (tmp_path / "no", None, "not a folder"),
        (benchmarks, "use_10", "unstereoeval/USE-10*.csv"),
        (benchmarks, ",", "names no set"),
        (benchmarks, "winogendr", "did you mean 'winogender'"),
        ("hub", "bbq", "give --benchmarks DIR"),
    ):
        with pytest.raises(InputError) as caught:
            read_sets(str(place), names)
        assert words in str(caught.value)


def test_a_set_named_twice_is_read_once(benchmarks):
    assert [one.name for one in read_sets(str(benchmarks), "use_5,winogender,use_5")] == [
        "use_5",
        "winogender",
    ]


def test_a_hub_that_cannot_be_reached_names_the_folder_instead():
    with pytest.raises(
        InputError, match="uclanlp/wino_bias cannot be fetched from the hub .* --benchmarks DIR"
    ):
        read_sets("hub", "winobias_type1")


def test_rows_of_the_hub_become_those_of_the_files():
    import datasets

    labels = datasets.ClassLabel(names=["anti-stereotype", "stereotype", "unrelated"])
    features = datasets.Features(
        {
            "bias_type": datasets.ClassLabel(names=["race", "gender"]),
            "sentences": {
                "sentence": datasets.List(datasets.Value("string")),
                "gold_label": datasets.List(labels),
            },
        }
    )
    row = {"bias_type": 1, "sentences": {"sentence": ["a", "b"], "gold_label": [2, 0]}}
    assert as_in_file(datasets.Dataset.from_list([row], features=features)) == [
        {
            "bias_type": "gender",
            "sentences": [
                {"sentence": "a", "gold_label": "unrelated"},
                {"sentence": "b", "gold_label": "anti-stereotype"},
            ],
        }
    ]
    words = {"tokens": ["The", "cook", "is", "n't", "late", "."], "coreference_clusters": ["0", "1"]}
    (found,) = as_in_file(datasets.Dataset.from_list([words]))
    assert found["text"] == "[The cook] isn't late." == bracketed(words["tokens"], [0, 1])


def test_templates_of_unstereoeval_are_filled_as_its_authors_fill_them():
    template = '{pronoun} paid on the "TV". {pronoun1} cat saw {pronoun2} hurt {pronoun2}self.'
    assert in_gender(template, 0) == "He paid on the tv. his cat saw him hurt himself."
    assert in_gender(template, 1) == "She paid on the tv. her cat saw her hurt herself."


def test_rows_of_unstereoeval_that_differ_in_pronouns_or_come_twice_are_items(folder):
    path = folder / "unstereoeval" / "USE-5.csv"
    head, first, *rest = path.read_text().splitlines()
    swapped = first.replace(",{},", ",\"Counter({'He': 1, 'She': 1})\",")
    unnatural = rest[0].replace("True,True,False", "False,True,False")
    assert swapped != first and unnatural != rest[0]
    path.write_text("\n".join([head, first, swapped, unnatural, *rest[1:]]) + "\n")
    (one,) = read_sets(str(folder), "use_5")
    assert len(one.items) == 4 and one.items[0] == one.items[1]
    assert one.notes == ["1 items are not natural for both, in the words of the set, and are left out"]


def test_real_sets_have_the_published_sizes(public_sets):
    sizes = {one.name: len(one.items) for one in read_sets(str(public_sets))}
    known = {"crows_pairs": 1508, "crows_pairs_gender": 262, "winogender": 240, "stereoset": 255}
    assert known.items() <= sizes.items()
    assert sizes["winobias_type1"] == 396 - 2 and sizes["winobias_type2"] == 396 - 7
    questions = [json.loads(line) for line in open(public_sets / "bbq" / "Gender_identity.jsonl")]  # noqa: SIM115
    groups = [row["additional_metadata"]["stereotyped_groups"] for row in questions]
    assert sizes["bbq"] == groups.count(["F"]) + groups.count(["M"]) - 16  # those without a target

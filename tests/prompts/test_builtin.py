"""The built-in prompts: twins equal but for the group's words, nothing shared across splits, dealt evenly."""

import re
from collections import Counter
from itertools import combinations

import pytest

from isentropic.gap import clusters_of, known_labels
from isentropic.prompts.builtin import (
    BUILTIN,
    FILLERS,
    GENDER_TEMPLATES,
    GENDER_WORDS,
    NAMES,
    NEUTRAL_TEXTS,
    PERSON_TEMPLATES,
    Filler,
    Template,
    builtin,
    combine,
    with_articles,
)
from isentropic.prompts.prompt_set import SPLITS, Prompt

GENDERED = {
    word.lower()
    for group in ("male", "female")
    for slot, word in GENDER_WORDS[group].items()
    if len(slot) > 1
} - {"s", "es", "is", "was", "has"}


def pairs(name: str, **where: str) -> list[tuple[Prompt, ...]]:
    return [t for t in builtin(name).tuples() if all(getattr(t[0], k) == v for k, v in where.items())]


def template_and_filler(twins: tuple[Prompt, ...]) -> tuple[str, str]:
    *_, template, filler = (twins[0].pair_id or "").split("/")
    return template, filler


def test_the_gender_set_is_as_large_as_promised() -> None:
    assert Counter(t.split for t in GENDER_TEMPLATES) == {"train": 96, "validation": 32, "test": 84}
    assert {s: len(FILLERS["occupation"][s]) for s in SPLITS} == {"train": 36, "validation": 12, "test": 24}
    assert Counter((t[0].split, t[0].cell) for t in pairs("gender")) == {
        ("train", None): 480,
        ("validation", None): 128,
        ("test", "both new"): 336,
        ("test", "new occupations"): 96,
        ("test", "new templates"): 84,
    }


@pytest.mark.parametrize("name", BUILTIN)
def test_every_set_is_paired_and_its_twins_differ_with_equal_word_counts(name: str) -> None:
    prompts = builtin(name)
    assert prompts.paired
    assert len(set(prompts.counts().values())) == 1
    for twins in prompts.tuples():
        assert [p.group for p in twins] == list(prompts.groups)
        assert len({p.text for p in twins}) == len(twins)
        assert len({len(p.text.split()) for p in twins}) == 1


@pytest.mark.parametrize("name", BUILTIN)
def test_every_text_is_an_open_start_without_left_over_slots(name: str) -> None:
    for prompt in builtin(name).prompts:
        assert not re.search(r"[{}]|a/an|  |\s$|[.!?]$", prompt.text), prompt.text
        assert prompt.text[0].isupper() or prompt.text[0] == '"'


def test_gender_twins_are_equal_once_gender_words_are_masked() -> None:
    def mask(text: str) -> str:
        return re.sub(r"[A-Za-z]+", lambda m: "_" if m[0].lower().rstrip("s") in masked else m[0], text)

    masked = {w.rstrip(".s") for w in GENDERED}
    for male, female in pairs("gender"):
        assert mask(male.text) == mask(female.text)


def test_no_gender_word_of_the_other_group_is_in_a_text() -> None:
    own = {g: {w.lower().rstrip(".") for w in GENDER_WORDS[g].values()} for g in ("male", "female")}
    for prompt in builtin("gender").prompts:
        words = set(re.findall(r"[a-z]+", prompt.text.lower()))
        other = own["female" if prompt.group == "male" else "male"] - own[prompt.group]
        assert words & own[prompt.group] and not words & other, prompt.text


def test_gender_is_visible_before_the_last_word() -> None:
    """Where only the last word tells the groups apart, the first scored position has seen nothing else."""
    for male, female in pairs("gender"):
        assert male.text.split()[:-1] != female.text.split()[:-1], male.text


def test_the_neutral_form_keeps_verbs_in_agreement() -> None:
    for *_, neutral in pairs("gender_neutral"):
        assert not re.search(r"\b[Tt]hey (is|was|has|does|(?!always)[a-z]+[^su]s)\b", neutral.text), (
            neutral.text
        )


@pytest.mark.parametrize("templates", [GENDER_TEMPLATES, PERSON_TEMPLATES])
def test_templates_are_distinct_sentences(templates: tuple[Template, ...]) -> None:
    """No two templates share more than half of their words, so an unseen one is really new."""
    assert len({t.name for t in templates}) == len(templates)
    for a, b in combinations(templates, 2):
        first, second = ({*re.findall(r"[a-z]+|\{\w+\}", t.text.lower())} for t in (a, b))
        assert len(first & second) / len(first | second) <= 0.5, (a.text, b.text)


def test_all_splits_mix_the_kinds_alike() -> None:
    """Else a difference between train and test could be one of kinds."""
    shares = {"occupation": 0.70, "family": 0.11, "school": 0.095, "mathematics": 0.095}
    for split in SPLITS:
        kinds = Counter(t.kind for t in GENDER_TEMPLATES if t.split == split)
        for kind, share in shares.items():
            assert kinds[kind] / kinds.total() == pytest.approx(share, abs=0.02), (split, kind)


def test_fillers_are_in_one_split_only() -> None:
    for kind, splits in FILLERS.items():
        counts = Counter(filler for fillers in splits.values() for filler in fillers)
        assert set(counts.values()) == {1}, kind
        assert sum(counts.values()) >= 16


def test_names_are_in_one_split_only() -> None:
    counts = Counter(name for split in NAMES.values() for names in split.values() for name in names.split())
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("name", BUILTIN)
def test_test_shares_no_template_and_no_filler_with_what_trains_or_stops(name: str) -> None:
    seen = [template_and_filler(t) for split in ("train", "validation") for t in pairs(name, split=split)]
    new = [template_and_filler(t) for t in pairs(name, split="test", cell="both new")]
    assert not {t for t, _ in seen} & {t for t, _ in new}
    assert not {f for _, f in seen} & {f for _, f in new}
    train = {template_and_filler(t) for t in pairs(name, split="train")}
    validation = {template_and_filler(t) for t in pairs(name, split="validation")}
    assert not {t for t, _ in train} & {t for t, _ in validation}
    assert not {f for _, f in train} & {f for _, f in validation}


@pytest.mark.parametrize("name", BUILTIN)
def test_the_other_cells_are_new_in_one_respect(name: str) -> None:
    train = [template_and_filler(t) for t in pairs(name, split="train")]
    templates, fillers = {t for t, _ in train}, {f for _, f in train}
    for twins in pairs(name, split="test"):
        template, filler = template_and_filler(twins)
        assert (template in templates, filler in fillers) == {
            "both new": (False, False),
            "new templates": (False, True),
        }.get(twins[0].cell or "", (True, False))


@pytest.mark.parametrize("name", BUILTIN)
def test_no_text_stands_twice(name: str) -> None:
    assert max(Counter((p.text, p.group) for p in builtin(name).prompts).values()) == 1


@pytest.mark.parametrize("name", BUILTIN)
@pytest.mark.parametrize("split", SPLITS)
def test_the_first_pairs_of_a_split_visit_the_templates_evenly(name: str, split: str) -> None:
    twins = pairs(name, split=split)
    if split == "test":
        twins = [t for t in twins if t[0].cell == "both new"]
    topics = len({t[0].topic for t in twins})
    for n in (8, topics // 2, topics, 2 * topics, 3 * topics):
        counts = Counter(t[0].topic for t in twins[:n])
        assert max(counts.values()) - (min(counts.values()) if n >= topics else 0) <= 1


def test_the_first_pairs_hold_all_kinds() -> None:
    kind = {t.name: t.kind for t in GENDER_TEMPLATES}
    found = Counter(kind[t[0].topic or ""] for t in pairs("gender", split="train")[:32])
    assert found == {"occupation": 22, "family": 4, "school": 3, "mathematics": 3}


def test_fillers_are_used_evenly() -> None:
    for split, cell in (("train", None), ("validation", None), ("test", "both new")):
        used = Counter(template_and_filler(t)[1] for t in pairs("gender", split=split) if t[0].cell == cell)
        for fillers in FILLERS.values():
            counts = [used[f.replace(" ", "-")] for f in fillers[split]]
            assert max(counts) - min(counts) <= 1


def test_combine_covers_the_full_cross_before_it_repeats() -> None:
    """4 templates and 6 fillers fall into step after 12 deals; the shift brings the other 12."""
    templates = [Template(f"t{i}", "kind", "{word} {filler}", "train") for i in range(4)]
    fillers = [Filler(f"f{i}", {"a": {"word": "x"}, "b": {"word": "y"}}) for i in range(6)]
    rows = combine(templates, {"kind": fillers}, 6, "train")
    assert len({row.pair_id for row in rows}) == 24 == len(rows) // 2


def test_numbers_are_the_same_in_all_twins_and_make_sense() -> None:
    for twins in pairs("gender_neutral"):
        numbers = [re.findall(r"\b\d+\b", p.text) for p in twins]
        assert numbers[0] == numbers[1] == numbers[2]
        if len(numbers[0]) == 2:
            assert {int(n) > 9 for n in numbers[0]} == {True, False}


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("a/an architect", "an architect"),
        ("A/an optician", "An optician"),
        ("a/an real estate agent", "a real estate agent"),
        ("a/an yoga instructor", "a yoga instructor"),
        ("a/an university teacher", "a university teacher"),
        ("a/an usher", "an usher"),
        ("a/an honest man", "an honest man"),
        ("a/an unusual one", "an unusual one"),
        ("a/an uniform", "a uniform"),
    ],
)
def test_articles(text: str, resolved: str) -> None:
    assert with_articles(text) == resolved


def test_articles_in_all_prompts_follow_the_first_letter() -> None:
    """None of our fillers is an exception, so the plain rule must hold everywhere."""
    for name in BUILTIN:
        for prompt in builtin(name).prompts:
            for article, initial in re.findall(r"\b([Aa]n?) (\w)", prompt.text):
                assert (len(article) == 2) == (initial.lower() in "aeiou"), prompt.text


def test_neutral_texts_are_short_distinct_and_about_no_one() -> None:
    assert len(set(NEUTRAL_TEXTS)) == 64
    people = {w.rstrip(".") for w in GENDERED} | set("they them their person people i we you".split())
    for text in NEUTRAL_TEXTS:
        assert 5 <= len(text.split()) <= 12, text
        assert not people & set(re.findall(r"[a-z]+", text.lower())), text


def test_the_topic_of_a_names_pair_is_its_names() -> None:
    """Other names would give other gaps, more than other templates do: names are the clusters."""
    rows = builtin("names", ["english", "arabic"]).prompts
    for row in rows:
        english, arabic = row.topic.split(", ")
        assert {"english": english, "arabic": arabic}[row.group] in row.text
    by_topic = Counter(row.topic for row in rows if row.split == "test")
    assert len(by_topic) == 20 and min(by_topic.values()) > 6


@pytest.mark.parametrize("name", BUILTIN)
def test_every_prompt_says_what_recurs_over_its_topic(name: str) -> None:
    prompts = builtin(name)
    for split in SPLITS:
        twins = [pair[0] for pair in prompts.split(split).tuples()]
        part = clusters_of(known_labels([p.topic for p in twins], [p.filler for p in twins]), len(twins))
        assert part.unit == "topic" and part.fillers and part.fillers.sizes.max() > 1
    for p in prompts.prompts:
        _, template, filler = p.pair_id.rsplit("/", 2)
        assert p.filler.replace(" ", "-") == (template if name == "names" else filler)


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("gender", "75b74202635f301dc0a5f40016dde1f475bb366a3852e308e1a35ede921d3936"),
        ("gender_neutral", "519b8bd2560c455cfa97ed990e075d5442d563a58e3ef2216273a38225082843"),
        ("names", "072a948860ab46a05b8dfde4720622e1153024fcb3992c6828bf9a5fb9635387"),
        ("age", "6f9a5f5c28535cf39f0e61a3eb0cd9e09d153199d0201b21d9158b8850828176"),
    ],
)
def test_the_published_figures_are_of_these_prompts(name, sha256):
    """A change of one text makes another set: the figures in docs/results.md are then of an older one."""
    assert builtin(name).sha256 == sha256

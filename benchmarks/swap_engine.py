"""Measure the swap engine on twins whose other half is known.

    python benchmarks/swap_engine.py --data DIR [--model DIR] [--out benchmarks/results/swap_engine.json]

Twins: gsm8k/train_gender_pairs.jsonl (names known: given to the engine), winobias/*.dev (aligned lines that differ in the
pronoun alone), winogender/all_sentences.tsv. A swap is right if it equals the other twin character for character.
No twins: gsm8k/train_gendered.jsonl, names not given: only what is flagged is counted. And running text, for the two
pronouns that need grammar: in a sentence with a single him or his it becomes her, and the engine must say which it was;
her or hers, taken for a person or a thing by a human writer, becomes his.
The rules were written looking at failures in GSM8K pairs, WinoBias, LAMBADA, HellaSwag and WikiText-2; Winogender, BOLD and
the GSM8K test split were only counted ("unseen").
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from isentropic.prompts.swap.swap import Chooser, detect, lm_chooser, swap

PRONOUN = re.compile(r"\b(he|she|him|her|his|hers|himself|herself)\b", re.IGNORECASE)
MALE = {"he", "him", "his", "himself"}


def gsm8k(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for line in (folder / "gsm8k" / "train_gender_pairs.jsonl").read_text(encoding="utf-8").splitlines():
        r = json.loads(line)
        names = (r["male_name"], r["female_name"])
        rows.append(
            {
                "set": f"GSM8K {r['split']}",
                "id": r["idx"],
                "male": r["male"],
                "female": r["female"],
                "names": names,
            }
        )
    return rows


def winobias(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Aligned .dev lines without number and brackets; the rest is listed with the reason."""
    rows, left_out = [], []
    for kind in ("type1", "type2"):
        pro, anti = (
            (folder / "winobias" / f"{side}_stereotyped_{kind}.txt.dev")
            .read_text(encoding="utf-8")
            .splitlines()
            for side in ("pro", "anti")
        )
        for number, pair in enumerate(zip(pro, anti, strict=True), 1):
            one, two = (re.sub(r"[\[\]]", "", re.sub(r"^\d+\s+", "", line)).strip() for line in pair)
            where = f"{kind} line {number}"
            genders = [{"m" if w.lower() in MALE else "f" for w in PRONOUN.findall(s)} for s in (one, two)]
            if PRONOUN.sub("#", one) != PRONOUN.sub("#", two):
                left_out.append(f"{where}: differs in more than the pronoun")
            elif sorted(map(sorted, genders)) != [["f"], ["m"]]:
                left_out.append(f"{where}: not one gender a line")
            elif set(detect(one).evidence) - set(PRONOUN.findall(one)):
                left_out.append(f"{where}: holds a gendered noun, which the set does not swap")
            else:
                male, female = (one, two) if genders[0] == {"m"} else (two, one)
                rows.append(
                    {"set": f"WinoBias {kind}", "id": number, "male": male, "female": female, "names": None}
                )
    return rows, left_out


def winogender(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The male and female form of each template; the neutral one is not used."""
    forms: dict[str, dict[str, str]] = {}
    for line in (folder / "winogender" / "all_sentences.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        sentid, sentence = line.split("\t")
        occupation, participant, answer, gender, _ = sentid.split(".")
        forms.setdefault(f"{occupation}.{participant}.{answer}", {})[gender] = sentence
    rows, left_out = [], []
    for key, form in forms.items():
        if set(detect(form["male"]).evidence) - set(PRONOUN.findall(form["male"])):
            left_out.append(f"winogender {key}: holds a gendered noun, which the set does not swap")
        else:
            rows.append(
                {
                    "set": "Winogender",
                    "id": key,
                    "male": form["male"],
                    "female": form["female"],
                    "names": None,
                }
            )
    return rows, left_out


def sentences(folder: Path, name: str) -> list[str]:
    """Running text, cut into sentences."""
    if name == "LAMBADA":
        lines = (folder / "lambada" / "lambada_test.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["text"] for line in lines]
    elif name == "GSM8K test":
        lines = (folder / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["question"] for line in lines]
    elif name == "BOLD":
        groups = json.loads((folder / "bold" / "gender_wiki.json").read_text(encoding="utf-8"))
        texts = [text for people in groups.values() for found in people.values() for text in found]
    else:
        texts = (folder / "wikitext2" / "wiki.test.raw").read_text(encoding="utf-8").splitlines()
    return [s for text in texts for s in re.split(r"(?<=[.!?])\s+(?=[A-Z\"\u201c])|\n", text.strip()) if s]


def recover(texts: list[str]) -> dict[str, Counter[str]]:
    """Hide him, his, her or hers behind its homograph and ask the engine which it was."""
    counts: dict[str, Counter[str]] = {"him": Counter(), "his": Counter(), "her or hers": Counter()}
    for text in texts:
        found = re.findall(r"\b(?:him|his|her|hers)\b", text)
        if len(found) != 1:
            continue
        gold = found[0]
        if gold in ("him", "his"):
            hidden, row = "her", gold
        elif gold == "hers" or any(
            c.old == "her" and c.new == "his" for c in swap(text, check_round_trip=False).changes
        ):
            hidden, row = "his", "her or hers"
        else:
            continue  # her for him: no question of hers
        result = swap(re.sub(rf"\b{gold}\b", hidden, text), check_round_trip=False)
        said = [c.new for c in result.changes if c.old == hidden]
        if said:
            undecided = (result.flagged or "").startswith("undecided")
            counts[row]["undecided" if undecided else "right" if said[0] == gold else "wrong"] += 1
    return counts


def measure(
    rows: list[dict[str, Any]], choose: Chooser | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    table: dict[tuple[str, str], Counter[str]] = {}
    failures = []
    for row in rows:
        for source, target in (("male", "female"), ("female", "male")):
            result = swap(row[source], names=row["names"], choose=choose)
            counts = table.setdefault((row["set"], f"{source} to {target}"), Counter())
            counts["n"] += 1
            right = result.text == row[target]
            counts["guess right"] += right
            if result.flagged:
                counts["flagged"] += 1
            else:
                counts["right"] += right
            if result.flagged or not right:
                failures.append(
                    {"set": row["set"], "id": row["id"], "direction": f"{source} to {target}", "right": right,
                     "flagged": result.flagged}
                )  # fmt: skip
    lines = []
    for (name, direction), c in table.items():
        kept = c["n"] - c["flagged"]
        lines.append(
            {"set": name, "direction": direction, "n": c["n"], "flagged": c["flagged"],
             "flagged_pct": 100 * c["flagged"] / c["n"], "unflagged": kept, "right": c["right"],
             "right_pct": 100 * c["right"] / kept if kept else None, "right_flags_ignored_pct": 100 * c["guess right"] / c["n"]}
        )  # fmt: skip
    return lines, failures


def wild(folder: Path, choose: Chooser | None) -> dict[str, Any]:
    """Real problems as they were written, names not given: how much is flagged, and why."""
    kinds: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    lines = (folder / "gsm8k" / "train_gendered.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        row = json.loads(line)
        found = detect(row["question"]).group
        groups["as marked" if found == row["gender"] else found] += 1
        result = swap(row["question"], choose=choose)
        kinds[result.flagged.split(":")[0] if result.flagged else "not flagged"] += 1
    return {"n": len(lines), "flags": dict(kinds.most_common()), "detected": dict(groups.most_common())}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark sets")
    parser.add_argument(
        "--model", help="folder or hub id of a causal language model that decides the undecided"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "swap_engine.json")
    args = parser.parse_args()

    rows, left_out = winobias(args.data)
    more, more_left_out = winogender(args.data)
    rows = gsm8k(args.data) + rows + more
    left_out += more_left_out
    report: dict[str, Any] = {"left_out": left_out, "pronouns": {}, "runs": []}
    print(f"{'pronouns in running text':26} {'':12} {'n':>5} {'undecided':>10} {'right of the rest':>19}")
    for name, seen in (
        ("LAMBADA", "seen"),
        ("WikiText-2", "seen"),
        ("BOLD", "unseen"),
        ("GSM8K test", "unseen"),
    ):
        counts = recover(sentences(args.data, name))
        report["pronouns"][name] = {"rules": seen, **{row: dict(c) for row, c in counts.items()}}
        for row, c in counts.items():
            kept = c["right"] + c["wrong"]
            print(
                f"{name + ' (' + seen + ')':26} {row:12} {sum(c.values()):5} {c['undecided']:10} "
                f"{c['right']:6}/{kept:<5}{100 * c['right'] / max(kept, 1):6.2f} %"
            )
    choosers: list[tuple[str, Chooser | None]] = [("rules alone", None)]
    if args.model:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(args.threads)
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
        size = sum(p.numel() for p in model.parameters()) / 1e6
        label = f"rules and a {size:.0f}M {model.config.model_type} model"
        choosers.append((label, lm_chooser(model, AutoTokenizer.from_pretrained(args.model))))

    for label, choose in choosers:
        start = time.perf_counter()
        table, failures = measure(rows, choose)
        seconds = time.perf_counter() - start
        n, flagged = sum(r["n"] for r in table), sum(r["flagged"] for r in table)
        right, kept = sum(r["right"] for r in table), sum(r["unflagged"] for r in table)
        total = {"n": n, "flagged_pct": 100 * flagged / n, "right_pct": 100 * right / kept}
        print(f"\n{label}: {seconds:.1f} s")
        print(
            f"{'set':16} {'direction':16} {'n':>5} {'flagged':>9} {'right of the rest':>19} {'flags ignored':>14}"
        )
        for r in table:
            print(
                f"{r['set']:16} {r['direction']:16} {r['n']:5} {r['flagged_pct']:7.2f} % "
                f"{r['right']:6}/{r['unflagged']:<5}{r['right_pct']:6.2f} % {r['right_flags_ignored_pct']:11.2f} %"
            )
        print(
            f"{'all':33} {n:5} {total['flagged_pct']:7.2f} % {right:6}/{kept:<5}{total['right_pct']:6.2f} %"
        )
        for f in failures:
            state = "right" if f["right"] else "WRONG"
            print(f"  {f['set']} {f['id']} {f['direction']}: {state}, {f['flagged'] or 'not flagged'}")
        run = {
            "decided_by": label,
            "seconds": round(seconds, 1),
            "total": total,
            "table": table,
            "failures": failures,
        }
        if choose is None:
            run["unmarked_names"] = wild(args.data, choose)
            print("\nGSM8K problems as written, names unknown:", json.dumps(run["unmarked_names"]))
        report["runs"].append(run)
    print(f"\nLines left out: {len(left_out)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

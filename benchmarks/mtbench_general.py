"""What tuning on one task did to general replies, without a judge.

    python benchmarks/mtbench_general.py --out answers --models base adapter [--json general.json]

`answers/mt_bench` and `answers/instruct` hold what `mtbench_runner answer --out` wrote. Counted by
rule, model by model: how long replies are, how many were cut at the token limit, end in a loop,
decline, are empty, or are one JSON object where none was asked for (the format of TAT-QA's
answers); and of the bench `instruct`, whose instructions can be checked, how many were followed. A
rule reads the letter of a reply: it says nothing of whether a reply is good.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

from mtbench_runner import bench as benches
from mtbench_runner.bench import Bench

DECLINES = re.compile(
    r"^\W*(?:I'?m sorry|sorry|I can(?:no|')t|I am unable|As an AI)", re.IGNORECASE
)
LOOP = re.compile(r"(.{20,200}?)\1{3,}\s*$|(.{2,19}?)\2{15,}\s*$", re.DOTALL)  # and cut in it


# --- instructions that can be checked


def sentences(text: str) -> list[str]:
    """Sentences by their marks; an abbreviation counts as an end."""
    parts = re.split(r"(?<=[.!?])\s+", text.strip())
    return [part for part in parts if part]


def words(text: str) -> list[str]:
    return re.findall(r"[\w'’-]+", text)


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def two_paragraphs(text: str) -> bool:
    paragraphs = [part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]
    return len(paragraphs) == 2 and all(len(sentences(part)) == 2 for part in paragraphs)


def numbered(text: str, number: int) -> bool:
    found = lines(text)
    starts = [re.match(rf"{place}[.)]\s", line) for place, line in enumerate(found, 1)]
    return len(found) == number and all(starts)


def four_in_order(text: str) -> bool:
    names = [name.strip(" .") for name in text.split(",")]
    return len(names) == 4 and names == sorted(names) and all(len(words(n)) <= 2 for n in names)


def person(text: str) -> bool:
    try:
        found = json.loads(re.sub(r"^```(?:json)?|```$", "", text.strip(), flags=re.MULTILINE))
    except ValueError:
        return False
    return found in ({"name": "Mira", "age": 31}, {"name": "Mira", "age": "31"})


def months(text: str) -> bool:
    rows = [re.findall(r"[^|\s]+", line) for line in lines(text) if "|" in line]
    wanted = [["Month", "Days"], ["January", "31"], ["February", "28"], ["March", "31"]]
    return [row for row in rows if not set("".join(row)) <= set(":-")] == wanted


def distinct_letters(text: str) -> bool:
    first = [word[0].lower() for word in words(text)]
    return len(sentences(text)) == 1 and len(first) >= 3 and len(set(first)) == len(first)


def framed(text: str) -> bool:
    found = lines(text)
    return len(found) == 3 and (found[0], found[2]) == ("START", "END")


def in_order(text: str, *parts: str) -> bool:
    places = [text.lower().find(part) for part in parts]
    return -1 not in places and places == sorted(places)


def starts_with_quantity(line: str) -> bool:
    """Whether a list's item begins with a number, its place in the list apart."""
    item = re.sub(r"^(?:\d+[.)]|[-*•])\s+", "", line)
    number = r"\d|½|a\b|an\b|half\b|one\b|two\b|three\b|four\b|five\b|six\b|seven\b|ten\b|twelve\b"
    return bool(re.match(rf"\**(?:{number})", item, re.IGNORECASE))


def has_words(text: str, *wanted: str) -> bool:
    return set(wanted) <= {word.lower() for word in words(text)}


CHECKS: dict[int, Callable[[str], bool]] = {
    1: lambda t: len(sentences(t)) == 3,
    2: lambda t: 0 < len(words(t)) <= 25,
    3: lambda t: len(lines(t)) == 1 and 6 <= len(words(t)) <= 10,
    4: lambda t: len(sentences(t)) == 1 and 0 < len(words(t)) <= 20,
    5: two_paragraphs,
    6: lambda t: numbered(t, 5),
    7: four_in_order,
    8: lambda t: len(lines(t)) == 3 and all(line.startswith("- ") for line in lines(t)),
    9: lambda t: sum(map(starts_with_quantity, lines(t))) == 7,
    10: lambda t: len(re.findall(r"\([^)]+\)", t)) == 3,
    11: person,
    12: lambda t: t.strip() == "2021-07-04",
    13: months,
    14: lambda t: bool(re.fullmatch(r"\*+[^a-z*]*[A-Z][^a-z*]*\*+", t.strip())),
    15: lambda t: t.strip() == "yes",
    16: lambda t: len(sentences(t)) == 2 and not re.search(r"blue|water|wave", t.lower()),
    17: distinct_letters,
    18: lambda t: len(re.findall(r"\bshelf\b", t.lower())) == 2,
    19: lambda t: has_words(t, "unfortunately", "grateful", "another"),
    20: lambda t: len(words(t)) >= 8 and "e" not in t.lower(),
    21: lambda t: bool(re.fullmatch(r"\[?27,?\s+21,?\s+14,?\s+9,?\s+3\]?\.?", t.strip())),
    22: lambda t: numbered(t, 3) and in_order(t, "boil", "pour", "drink"),
    23: framed,
    24: lambda t: t.strip().startswith("Yesterday"),
    25: lambda t: len(lines(t)) == 3 and len(sentences(lines(t)[0])) == 1,
}


# --- counting


def replies(bench: Bench, model: str) -> list[tuple[str, str | None]]:
    """Text and finish reason of every answered turn."""
    found = []
    for answer in bench.answers(model).values():
        choice = answer["choices"][0]
        finishes = choice.get("finish_reasons") or [None for _ in choice["turns"]]
        found += list(zip(choice["turns"], finishes, strict=True))
    return found


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def count(bench: Bench, model: str) -> dict[str, Any]:
    """The row of a model: lengths in characters, the rest in replies."""
    said = replies(bench, model)
    texts = [text for text, _ in said]
    return {
        "replies": len(texts),
        "mean_length": round(mean(map(len, texts))),
        "median_length": round(median(map(len, texts))),
        "cut": sum(finish == "length" for _, finish in said),
        "loops": sum(bool(LOOP.search(text)) for text in texts),
        "declines": sum(bool(DECLINES.search(text)) for text in texts),
        "empty": sum(not text.strip() for text in texts),
        "json": sum(is_object(text) for text in texts),
    }


def followed(bench: Bench, model: str) -> list[int]:
    """The questions of `instruct` whose instruction the model's reply follows."""
    found = []
    for question, answer in bench.answers(model).items():
        if CHECKS[int(question)](answer["choices"][0]["turns"][0]):
            found.append(int(question))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the answers")
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--data", default=None, help="MT-Bench's folder (default: downloaded)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result: dict[str, Any] = {}
    mt_bench = benches.load(args.data, str(args.out / "mt_bench"))
    instruct = benches.load("instruct", str(args.out / "instruct"))
    for model in args.models:
        result[model] = {"mt_bench": count(mt_bench, model), "instruct": count(instruct, model)}
        result[model]["followed"] = followed(instruct, model)
    print(table(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def table(result: dict[str, Any]) -> str:
    names = "replies|mean_length|median_length|cut|loops|declines|empty|json".split("|")
    rows = [f"| bench | model | {' | '.join(names)} | followed |", "|---" * (len(names) + 3) + "|"]
    for bench in ("mt_bench", "instruct"):
        for model, found in result.items():
            counts = " | ".join(str(found[bench][name]) for name in names)
            kept = f"{len(found['followed'])} of 25" if bench == "instruct" else "-"
            rows.append(f"| {bench} | {model} | {counts} | {kept} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()

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
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

from mtbench_runner import bench as benches
from mtbench_runner.bench import Bench, turns_of

DECLINES = re.compile(
    r"^\W*(?:I'?m sorry|sorry|I can(?:no|')t|I am unable|As an AI)", re.IGNORECASE
)
LOOP = re.compile(r"(.{20,200}?)\1{3,}\s*$|(.{2,19}?)\2{15,}\s*$", re.DOTALL)  # and cut in it


# --- instructions that can be checked


def sentences(text: str) -> list[str]:
    """Sentences by their marks; an abbreviation counts as an end."""
    parts = re.split(r"(?<=[.!?])\s+", text.strip())
    return list(filter(None, parts))


def words(text: str) -> list[str]:
    return re.findall(r"[\w'’-]+", text)


def lines(text: str) -> list[str]:
    """The lines that are not empty, without the spaces around them."""
    return list(filter(None, map(str.strip, text.splitlines())))


def two_paragraphs(text: str) -> bool:
    """Two paragraphs of two sentences each."""
    paragraphs = filter(str.strip, re.split(r"\n\s*\n", text.strip()))
    return [len(sentences(paragraph)) for paragraph in paragraphs] == [2, 2]


def numbered(text: str, number: int) -> bool:
    """So many lines, each with its number."""
    found = lines(text)
    for place, line in enumerate(found, 1):
        if not re.match(rf"{place}[.)]\s", line):
            return False
    return len(found) == number


def bullets(text: str, number: int) -> bool:
    """So many lines, each with a dash before it."""
    found = lines(text)
    return len(found) == number and all(line.startswith("- ") for line in found)


def four_in_order(text: str) -> bool:
    """Four names of at most two words with commas between them, in alphabetical order."""
    names = [name.strip(" .") for name in text.split(",")]
    longest = max(len(words(name)) for name in names)
    return len(names) == 4 and names == sorted(names) and longest <= 2


def person(text: str) -> bool:
    """The object of Mira, 31, in a code block or not."""
    without_fence = re.sub(r"^```(?:json)?|```$", "", text.strip(), flags=re.MULTILINE)
    try:
        found = json.loads(without_fence)
    except ValueError:
        return False
    return found in ({"name": "Mira", "age": 31}, {"name": "Mira", "age": "31"})


def months(text: str) -> bool:
    """The Markdown table of three months and their days."""
    rows = []
    for line in lines(text):
        cells = re.findall(r"[^|\s]+", line)
        is_rule = set("".join(cells)) <= set(":-")
        if "|" in line and not is_rule:
            rows.append(cells)
    return rows == [["Month", "Days"], ["January", "31"], ["February", "28"], ["March", "31"]]


def distinct_letters(text: str) -> bool:
    """One sentence whose words begin with different letters."""
    first = [word[0].lower() for word in words(text)]
    return len(sentences(text)) == 1 and len(first) >= 3 and len(set(first)) == len(first)


def framed(text: str) -> bool:
    """Three lines, the first START and the last END."""
    found = lines(text)
    return len(found) == 3 and (found[0], found[2]) == ("START", "END")


def in_order(text: str, *parts: str) -> bool:
    """Whether all parts stand in the text, in their order."""
    places = [text.lower().find(part) for part in parts]
    return -1 not in places and places == sorted(places)


def starts_with_quantity(line: str) -> bool:
    """Whether a list's item begins with a number, its place in the list apart."""
    item = re.sub(r"^(?:\d+[.)]|[-*•])\s+", "", line)
    number = r"\d|½|a\b|an\b|half\b|one\b|two\b|three\b|four\b|five\b|six\b|seven\b|ten\b|twelve\b"
    return bool(re.match(rf"\**(?:{number})", item, re.IGNORECASE))


def has_words(text: str, *wanted: str) -> bool:
    """Whether all these words are in the text, in whatever case."""
    return set(wanted) <= set(words(text.lower()))


def number_of(pattern: str, text: str) -> int:
    """How often a pattern stands in the text, in whatever case."""
    return len(re.findall(pattern, text, re.IGNORECASE))


def is_all(pattern: str, text: str) -> bool:
    """Whether the text is the pattern and nothing else."""
    return re.fullmatch(pattern, text.strip()) is not None


# question of the bench `instruct` -> whether a reply follows its instruction
CHECKS: dict[int, Callable[[str], bool]] = {
    1: lambda text: len(sentences(text)) == 3,
    2: lambda text: 0 < len(words(text)) <= 25,
    3: lambda text: len(lines(text)) == 1 and 6 <= len(words(text)) <= 10,
    4: lambda text: len(sentences(text)) == 1 and 0 < len(words(text)) <= 20,
    5: two_paragraphs,
    6: lambda text: numbered(text, 5),
    7: four_in_order,
    8: lambda text: bullets(text, 3),
    9: lambda text: sum(map(starts_with_quantity, lines(text))) == 7,
    10: lambda text: number_of(r"\([^)]+\)", text) == 3,
    11: person,
    12: lambda text: is_all("2021-07-04", text),
    13: months,
    14: lambda text: is_all(r"\*+[^a-z*]*[A-Z][^a-z*]*\*+", text),
    15: lambda text: is_all("yes", text),
    16: lambda text: len(sentences(text)) == 2 and number_of("blue|water|wave", text) == 0,
    17: distinct_letters,
    18: lambda text: number_of(r"\bshelf\b", text) == 2,
    19: lambda text: has_words(text, "unfortunately", "grateful", "another"),
    20: lambda text: len(words(text)) >= 8 and "e" not in text.lower(),
    21: lambda text: is_all(r"\[?27,?\s+21,?\s+14,?\s+9,?\s+3\]?\.?", text),
    22: lambda text: numbered(text, 3) and in_order(text, "boil", "pour", "drink"),
    23: framed,
    24: lambda text: text.strip().startswith("Yesterday"),
    25: lambda text: len(lines(text)) == 3 and len(sentences(lines(text)[0])) == 1,
}


# --- counting


def replies(bench: Bench, model: str) -> list[tuple[str, str | None]]:
    """Text and finish reason of every answered turn."""
    found = []
    for answer in bench.answers(model).values():
        choice = answer["choices"][0]
        turns = choice["turns"]
        finishes = choice.get("finish_reasons") or [None] * len(turns)
        found += list(zip(turns, finishes, strict=True))
    return found


def is_object(text: str) -> bool:
    """Whether a reply is one JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def count(bench: Bench, model: str) -> dict[str, Any]:
    """The row of a model: lengths in characters, the rest in replies."""
    lengths = []
    row: Counter[str] = Counter()
    for text, finish in replies(bench, model):
        lengths.append(len(text))
        row["cut"] += finish == "length"
        row["loops"] += LOOP.search(text) is not None
        row["declines"] += DECLINES.search(text) is not None
        row["empty"] += not text.strip()
        row["json"] += is_object(text)
    return {
        "replies": len(lengths),
        "mean_length": round(mean(lengths)),
        "median_length": round(median(lengths)),
        **row,
    }


def followed(bench: Bench, model: str) -> list[int]:
    """The questions of `instruct` whose instruction the model's reply follows."""
    found = []
    for question, answer in bench.answers(model).items():
        number = int(question)
        follows = CHECKS[number]
        if follows(turns_of(answer)[0]):
            found.append(number)
    return found


def main() -> None:
    """Count the replies of each model; print a table."""
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


COLUMNS = (
    "replies", "mean_length", "median_length", "cut", "loops", "declines", "empty", "json",
)  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """The counts as Markdown: a row for each bench and model."""
    titles = ["bench", "model", *COLUMNS, "followed"]
    rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for bench in ("mt_bench", "instruct"):
        for model, found in result.items():
            counts = " | ".join(str(found[bench][name]) for name in COLUMNS)
            kept = f"{len(found['followed'])} of 25" if bench == "instruct" else "-"
            rows.append(f"| {bench} | {model} | {counts} | {kept} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()

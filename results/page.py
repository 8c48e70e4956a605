"""Pages from blocks: markdown for code hosts, plain text for terminals, one self-contained HTML file with a browser of
single questions (page.html, which gets everything as JSON and shows model output as text, never as markup)."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from results import outputs

Block = tuple[str, Any]  # ("h1".."h4" | "p" | "li" | "code", text), ("table", rows), ("figure", (file, alt, svg))
TEMPLATE = Path(__file__).with_name("page.html")


def plain(rows: list[list[str]]) -> str:
    """A table for a terminal: first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *line[1:]]) for row, line in zip(rows, lines, strict=True))


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def markdown(blocks: Iterable[Block]) -> str:
    """The page as markdown."""
    parts: list[str] = []
    for kind, item in blocks:
        if kind == "table":
            rows = [f"| {' | '.join(map(cell, row))} |" for row in item]
            parts.append("\n".join([rows[0], "|" + " --- |" * len(item[0]), *rows[1:]]))
        elif kind == "figure":
            parts.append(f"![{item[1]}](figures/{item[0]})")
        elif kind == "code":
            parts.append(f"```\n{item}\n```")
        else:
            mark = "- " if kind == "li" else "#" * int(kind[1]) + " " if kind[0] == "h" else ""
            parts.append(mark + item)
    return re.sub(r"(?m)^(- .*)\n\n(?=- )", r"\1\n", "\n\n".join(parts)) + "\n"


def html(blocks: list[Block], questions: list[dict[str, Any]]) -> str:
    """The page as one HTML file; in the embedded JSON no `<` is left that could end the script."""
    data = json.dumps({"blocks": blocks, "questions": questions}, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return TEMPLATE.read_text(encoding="utf-8").replace("{{data}}", data)


def questions(runs: Path, pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Every question of every (base, run) whose raw files lie on this machine."""
    found = []
    for base, name in pairs:
        found += tatqa_questions(name, runs / base / "tatqa", runs / name / "tatqa")
        for bench in ("mtbench", "instruct"):
            found += judged_questions(name, bench, runs / base / bench, runs / name / bench)
    return found


def tatqa_questions(name: str, before: Path, after: Path) -> list[dict[str, Any]]:
    """What base and adapter answered, from lm-eval's samples; [] where they are not on this machine."""
    if not (before.is_dir() and after.is_dir()):
        return []
    sides = [outputs.samples(outputs.results_file(folder)) for folder in (before, after)]
    first, second = ({row["doc"]["uid"]: row for row in side} for side in sides)
    return [
        {"run": name, "bench": "TAT-QA", "kind": a["doc"]["answer_type"], "id": uid, "question": a["doc"]["question"],
         "gold": f"{a['doc']['answer']} {a['doc']['scale']}".strip(), "answers": [reply(a), reply(second[uid])],
         "scores": [a["em"], second[uid]["em"]], "judge": []}
        for uid, a in first.items() if uid in second
    ]  # fmt: skip


def reply(sample: dict[str, Any]) -> str:
    return str(sample["resps"][0][0])


def judged_questions(name: str, bench: str, before: Path, after: Path) -> list[dict[str, Any]]:
    """What base and adapter answered and what the judge said, turn by turn; [] where the files are not here."""
    if not (before / "question.jsonl").is_file() or not after.is_dir():
        return []
    found = []
    sides = [judged(folder) for folder in (before, after)]
    for q in outputs.read_lines(before / "question.jsonl"):
        for turn, text in enumerate(q["turns"], 1):
            both = [side.get((q["question_id"], turn), {"answer": "", "judgment": "", "score": None}) for side in sides]
            found.append({"run": name, "bench": bench, "kind": q["category"], "id": f"{q['question_id']}, turn {turn}",
                          "question": text, "gold": "", "answers": [s["answer"] for s in both],
                          "scores": [s["score"] for s in both], "judge": [s["judgment"] for s in both]})  # fmt: skip
    return found


def judged(folder: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """(question, turn) -> answer, judgment and score, from FastChat's files of one model."""
    answers = {r["question_id"]: r for f in (folder / "model_answer").glob("*.jsonl") for r in outputs.read_lines(f)}
    judgments = [r for f in (folder / "model_judgment").glob("*_single.jsonl") for r in outputs.read_lines(f)]
    return {
        (r["question_id"], r["turn"]): {
            "answer": answers[r["question_id"]]["choices"][0]["turns"][r["turn"] - 1],
            "judgment": r["judgment"], "score": r["score"],
        }
        for r in judgments
    }  # fmt: skip

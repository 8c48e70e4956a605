"""Pages from blocks: markdown for code hosts, and one HTML file that works without network and shows model output as
text, never as markup."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from results import outputs

TEMPLATES = Path(__file__).parent / "templates"
Block = tuple[
    str, Any
]  # ("h1".."h4" | "p" | "li" | "code", text), ("table", rows), ("figure", (file, alt, svg))


def from_template(name: str, parts: Mapping[str, Iterable[Block]], **facts: Any) -> Iterator[Block]:
    """Blocks of a template, a line each: `# heading`, `- item`, `@part@` or a paragraph, with the facts put in."""
    for line in (TEMPLATES / name).read_text(encoding="utf-8").format(**facts).splitlines():
        mark, _, rest = line.partition(" ")
        if line.strip("@") in parts:
            yield from parts[line.strip("@")]
        elif line:
            kind = f"h{len(mark)}" if set(mark) == {"#"} else "li" if mark == "-" else "p"
            yield kind, line if kind == "p" else rest


def markdown(blocks: Iterable[Block]) -> str:
    """The page as markdown."""
    text = "\n\n".join(_markdown(kind, item) for kind, item in blocks) + "\n"
    return re.sub(r"(?m)^(- .*)\n\n(?=- )", r"\1\n", text)


def _markdown(kind: str, item: Any) -> str:
    if kind == "table":
        rows = [" | ".join(re.sub(r"([|<*`\\])", r"\\\1", cell) for cell in row) for row in item]
        return "\n".join(
            f"| {row} |" for row in [rows[0], " | ".join(["---"] * len(item[0])), *rows[1:]]
        )
    if kind == "figure":
        return f"![{item[1]}](figures/{item[0]})"
    marks = {"p": "", "li": "- ", "code": "```\n"} | {f"h{n}": "#" * n + " " for n in range(1, 5)}
    return marks[kind] + item + ("\n```" if kind == "code" else "")


def html(blocks: list[Block], questions: list[dict[str, Any]]) -> str:
    """The page as one file; no `<` is left in the embedded JSON, so nothing in it can end the script element."""
    data = json.dumps({"blocks": blocks, "questions": questions}).replace("<", "\\u003c")
    return (TEMPLATES / "page.html").read_text(encoding="utf-8").replace("{{data}}", data)


def questions(runs: Path, base: str, name: str) -> list[dict[str, Any]]:
    """What base and adapter answered, question by question, from the raw files; [] where these are not here."""
    before, after = ({q["id"]: q for q in _answered(runs / side)} for side in (base, name))
    both = [(before[key], after[key]) for key in before if key in after]
    return [{"run": name, **one, "sides": [one["side"], other["side"]]} for one, other in both]


def _answered(folder: Path) -> Iterator[dict[str, Any]]:
    for results in sorted(folder.glob("tatqa/*/results_*.json"))[-1:]:
        for row in outputs.samples(results):
            doc = row["doc"]
            side = {"answer": row["resps"][0][0], "score": row["em"], "judge": ""}
            bench = "synthetic questions" if doc["uid"].startswith(outputs.SYNTHETIC) else "TAT-QA"
            yield {"bench": bench, "id": doc["uid"], "kind": doc["answer_type"], "question": doc["question"],
                   "gold": f"{doc['answer']} {doc['scale']}", "side": side}  # fmt: skip
    for judged in ("mtbench", "instruct"):
        yield from _judged(folder / judged)


def _judged(folder: Path) -> Iterator[dict[str, Any]]:
    asked = {
        q["question_id"]: q
        for file in folder.glob("question.jsonl")
        for q in outputs.read_lines(file)
    }
    for file in (
        folder.glob("model_judgment/*_single.jsonl") if asked else ()
    ):  # the questions come last of all
        answers = {
            a["question_id"]: a
            for f in folder.glob("model_answer/*.jsonl")
            for a in outputs.read_lines(f)
        }
        for row in outputs.read_lines(file):
            question, turn = asked[row["question_id"]], row["turn"] - 1
            answer = answers[row["question_id"]]["choices"][0]["turns"][turn]
            score, judge = (
                row["score"] if row["score"] > 0 else None,
                file.stem.removesuffix("_single"),
            )
            side = {"answer": answer, "score": score, "judge": f"{judge}: {row['judgment']}"}
            yield {"bench": folder.name, "id": f"{folder.name} {row['question_id']}, turn {turn + 1}", "gold": "",
                   "kind": question["category"], "question": question["turns"][turn], "side": side}  # fmt: skip

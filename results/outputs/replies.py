"""Replies and right answers as a person reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

from results.outputs.folders import Row
from results.outputs.identity import first_prompt, free_name, is_tatqa, item_name
from results.outputs.scores import score


@dataclass(frozen=True)
class Reply:
    """One reply as a person reads it."""

    item: str
    kind: str
    question: str
    gold: str
    text: str
    score: float | None
    parsed: float | None = None


def replies(rows: Sequence[Row], metric: str = "em") -> list[Reply]:
    """Replies as a person reads them."""
    found = []
    taken: dict[str, Row] = {}
    for row in rows:
        name = free_name(item_name(row), taken)
        taken[name] = row
        doc = row["doc"]
        value, _ = score(metric, row.get(metric))
        parsed = row.get("parsed")
        found.append(
            Reply(
                item=name,
                kind=str(doc.get("answer_type", row["task"])),
                question=str(doc.get("question") or first_prompt(row)),
                gold=gold(row),
                text=reply_text(row),
                score=value if isinstance(value, float) else None,
                parsed=float(parsed) if isinstance(parsed, bool | int | float) else None,
            )
        )
    return found


def gold(row: Row) -> str:
    """The right answer; TAT-QA's with its scale."""
    doc = row["doc"]
    if is_tatqa(row):
        return f"{doc['answer']} {doc['scale']}".strip()
    return str(row.get("target", ""))


def reply_text(row: Row) -> str:
    """What the model wrote, or which choice it found likeliest."""
    requests = row.get("resps") or [[""]]
    if not isinstance(requests, list):
        return str(requests)
    first = []
    for answers in requests:
        first.append(answers[0] if isinstance(answers, list) and answers else answers)
    if isinstance(first[0], str) or len(first) == 1:
        return str(first[0])
    try:
        likelihoods = [float(choice[0]) for choice in first]
    except (TypeError, ValueError, LookupError, OverflowError):
        return str(first)  # a kind of request not known here
    return f"choice {likelihoods.index(max(likelihoods))}"

"""A few changed replies, kept in a run's record: a page shows some without the raw samples."""

from collections.abc import Sequence
from pathlib import Path

from results import InputError, outputs
from results.files import text_hash
from results.outputs import Reply
from results.record import Example

OF_A_KIND = 3  # examples of a kind and bench
LONGEST = 600  # characters of a reply that are kept


def between(base: Path, run: Path, benches: Sequence[str]) -> list[Example]:
    """Examples from the samples of two run folders; none of a bench whose samples are not here."""
    found = []
    for bench in benches:
        try:
            rows_before = outputs.samples(outputs.results_file(base / bench))
            rows_after = outputs.samples(outputs.results_file(run / bench))
        except InputError:
            continue
        found += changed(bench, outputs.replies(rows_before), outputs.replies(rows_after))
    return found


def changed(bench: str, before: Sequence[Reply], after: Sequence[Reply]) -> list[Example]:
    """Some questions whose score, or else whose form, changed: which ones, a hash decides."""
    later = {reply.item: reply for reply in after}
    found: dict[str, list[Example]] = {"gained": [], "lost": [], "format": []}
    for one in sorted(before, key=lambda reply: text_hash(reply.item)):
        other = later.get(one.item)
        if other is None:
            continue
        kind = kind_of(one, other)
        if kind and len(found[kind]) < OF_A_KIND:
            found[kind].append(example(bench, kind, one, other))
    return found["gained"] + found["lost"] + found["format"]


def kind_of(before: Reply, after: Reply) -> str:
    """gained, lost, or format where only following the format changed; "" where nothing did."""
    if before.score is None or after.score is None:
        return ""
    if before.score != after.score:
        return "gained" if after.score > before.score else "lost"
    return "format" if before.parsed != after.parsed else ""


def example(bench: str, kind: str, before: Reply, after: Reply) -> Example:
    return Example.model_validate(
        {
            "bench": bench,
            "kind": kind,
            "group": before.kind,
            "question": shortened(before.question),
            "gold": shortened(before.gold),
            "before": shortened(before.text),
            "after": shortened(after.text),
        }
    )


def shortened(text: str) -> str:
    """The text, cut where it is too long for a page."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"

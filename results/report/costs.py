"""What a recipe cost: pairs, minutes and memory of training, and the seconds of every stage."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from results.record import Record
from results.report.collect import Run

LEAST = 0.5  # seconds of a part of training that is worth naming
NAMES = {"train": "training", "server": "starting the server"}
LOOP = "train"  # what the program calls its loop


def training_cost(run: Run) -> str:
    """Pairs, minutes, GiB and machine of training."""
    memory = f", {run.gib:.1f} GiB at most" if run.gib is not None else ""
    seeds = " a seed" if len(run.records) > 1 else ""
    return (
        f"Trained on {number_of_pairs(run)} pairs in {run.minutes:.1f} minutes{seeds}{memory}, on "
        f"{run.training.device}."
    )


def number_of_pairs(run: Run) -> str:
    """On how many pairs a seed was trained; the least and the most where seeds differ."""
    known = []
    for training in run.trainings:
        kept = training.pairs.get("kept")
        if isinstance(kept, int):
            known.append(kept)
    if not known:
        return "an unknown number of"
    least, most = min(known), max(known)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def stage_seconds(run: Run) -> str:
    """Where a recipe's minutes went: the commands of the run, and those of its base.

    Means over training seeds. Commands may have been at work side by side.
    """
    of_run = spent(run.records)
    of_base = spent([run.base])
    if not of_run:
        return ""
    base = f"; for its base, once: {of_base}" if of_base else ""
    return f"Seconds by command: {of_run}{base}."


def spent(records: Sequence[Record]) -> str:
    """Seconds of each stage in the order of work, with the parts of training in brackets."""
    parts = training_parts(records)
    words = []
    for name, seconds in means([record.seconds for record in records]).items():
        inside = f" ({parts})" if name == "train" and parts else ""
        words.append(f"{NAMES.get(name, name)} {seconds:.0f}{inside}")
    return ", ".join(words)


def training_parts(records: Sequence[Record]) -> str:
    """Of the seconds of training, what each part of the program took, the longest first."""
    by_part = means([parts_of(record) for record in records])
    words = []
    for name in sorted(by_part, key=lambda name: -by_part[name]):
        if by_part[name] >= LEAST:
            called = "loop" if name == LOOP else name
            words.append(f"{called} {by_part[name]:.0f}")
    return ", ".join(words)


def means(noted: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each name's seconds over the records that have it, in the order of work."""
    each: dict[str, list[float]] = {}
    for seconds in noted:
        for name, took in seconds.items():
            each.setdefault(name, []).append(took)
    found = {}
    for name, values in each.items():
        found[name] = fmean(values)
    return found


def parts_of(record: Record) -> dict[str, float]:
    """Seconds of the parts of one training; {} where its program did not note them."""
    noted = record.training.more.get("stages_seconds") if record.training else None
    found: dict[str, float] = {}
    if isinstance(noted, dict):
        for name, took in noted.items():
            if isinstance(took, int | float):
                found[name] = took
    return found

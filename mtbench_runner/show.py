"""What a person sees: tables of scores, the turns of two models side by side, a radar figure."""

import shutil
import textwrap
from itertools import zip_longest
from math import pi
from pathlib import Path

from mtbench_runner.bench import Bench
from mtbench_runner.score import SUCCESS, current_rows
from mtbench_runner.store import InputError, Row


def printable(text: str) -> str:
    """The text with every control character but tab and newline spelled out: a model's words never steer a terminal."""
    return "".join(
        c if c.isprintable() or c in "\t\n" else c.encode("unicode_escape").decode() for c in text
    )


def table(result: Row) -> str:
    """A result of `score` or `compare_pairs`: by category and turn, errors by question, then what is missing."""
    paired = "baseline" in result
    lines = _title(
        result, result["model_id"] + (f" against {result['baseline']}" if paired else "")
    )
    lines += _verdicts(result) if paired else [*_scores(result), *_notes(result)]
    cost = f", {result['cost_usd']:.2f} USD" if result["cost_usd"] is not None else ""
    lines += [
        f"turns: {result['n_expected']}, missing: {result['missing']}, without a rating: {result['unparsable']}",
        f"judge tokens: {result['usage']['prompt']} in, {result['usage']['completion']} out{cost}",
    ]
    return "\n".join(lines)


def _title(result: Row, what: str) -> list[str]:
    warning = (
        ["THE STAND-IN JUDGE FOLLOWS A FIXED RULE; ITS RATINGS MEASURE NOTHING"]
        if result["stand_in"]
        else []
    )
    return [f"{result['bench']}: {what}, judged by {result['judge']}", *warning]


def _verdicts(result: Row) -> list[str]:
    lines = [f"win {result['win']}, tie {result['tie']}, loss {result['loss']}"]
    if result["interval"]:
        low, high = result["interval"]
        lines.append(
            f"win rate, ties as half: {result['overall']:.1%} (95 % interval {low:.1%} to {high:.1%})"
        )
    return lines


def _scores(result: Row) -> list[str]:
    lines = [
        f"{'':<14}" + "".join(f"{'turn ' + turn:>9}" for turn in result["turns"]) + f"{'mean':>9}"
    ]
    means = result["categories"] | {"overall": result["overall"]}
    by_turn = result["category_turns"] | {"overall": result["turns"]}
    errors = result["stderr"]["categories"] | {"overall": result["stderr"]["overall"]}
    for name, mean in means.items():
        cells = [*(by_turn[name].get(turn) for turn in result["turns"]), mean]
        error = f"  ± {errors[name]:.2f}" if errors[name] is not None else ""
        lines.append(f"{name:<14}" + "".join(f"{_number(cell):>9}" for cell in cells) + error)
    return lines


def _notes(result: Row) -> list[str]:
    lines = []
    if result["success_rate"] is not None:
        lines.append(f"success rate (turns scored {SUCCESS} or more): {result['success_rate']:.1%}")
    if result["known_wrong_references"]:
        wrong = ", ".join(map(str, result["known_wrong_references"]))
        lines.append(
            f"GPT-4's reference answer is wrong for {wrong} (FastChat #3158; --references takes others)"
        )
    if strict := result.get("strict"):
        change = "" if strict["change"] is None else f" ({strict['change']:+.3f})"
        lines.append(f"strict reading of the ratings: {_number(strict['overall'])}{change}")
        for flag, places in strict["flagged"].items():
            if places:
                lines.append(
                    f"{flag}: " + ", ".join(f"{question} turn {turn}" for question, turn in places)
                )
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def question(bench: Bench, question_id: int, models: list[str], judge: str) -> str:
    """Each model's turns and judgments of one question, side by side. Raises InputError for an unknown question."""
    asked = next((q for q in bench.questions if q["question_id"] == question_id), None)
    if asked is None:
        raise InputError(f"{bench.name} has no question {question_id}")
    given = [bench.answers(model).get(question_id) for model in models]
    judged = [current_rows(bench, judge, model) for model in models]
    parts = [_columns(models)]
    for turn, text in enumerate(asked["turns"], 1):
        rows = [found.get((question_id, turn)) for found in judged]
        ratings = [
            f"[{judge}: {row['score']}] {row['judgment']}" if row else "(not judged)"
            for row in rows
        ]
        said = [
            answer["choices"][0]["turns"][turn - 1] if answer else "(not answered)"
            for answer in given
        ]
        parts += [f"--- turn {turn}: {text}", _columns(said), _columns(ratings)]
    return "\n\n".join(parts)


def _columns(texts: list[str]) -> str:
    width = (shutil.get_terminal_size((120, 24)).columns - 3 * (len(texts) - 1)) // len(texts)
    wrapped = [
        [w for line in printable(t).splitlines() for w in textwrap.wrap(line, width) or [""]]
        for t in texts
    ]
    rows = zip_longest(*wrapped, fillvalue="")
    return "\n".join(" | ".join(cell.ljust(width) for cell in row).rstrip() for row in rows)


def radar(results: list[Row], path: Path) -> None:
    """Draw the category means of one or more models on one radar, as FastChat's figure does."""
    from matplotlib.figure import Figure

    names = list(results[0]["categories"])
    angles = [2 * pi * i / len(names) for i in range(len(names))]
    figure = Figure(figsize=(6, 6))
    axes = figure.add_subplot(projection="polar")
    for result in results:
        values = [result["categories"].get(name) or 0.0 for name in names]
        axes.plot([*angles, angles[0]], [*values, values[0]], marker="o", label=result["model_id"])
    axes.set_xticks(angles, names)
    axes.set_ylim(0, 10)
    axes.set_title("\n".join(_title(results[0], "category means")), fontsize=9)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight")

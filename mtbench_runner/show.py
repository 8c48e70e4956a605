"""What a person sees: tables of scores, the turns of two models side by side, a radar figure."""

import contextlib
import shutil
import textwrap
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import zip_longest
from math import pi
from pathlib import Path

from mtbench_runner import ledger
from mtbench_runner.bench import Bench, turns_of
from mtbench_runner.ledger import Current
from mtbench_runner.outcome import histogram
from mtbench_runner.rows import (
    JudgeSummary,
    Noise,
    PairFile,
    Place,
    Question,
    ScoreFile,
    Strict,
    Summary,
)
from mtbench_runner.score import SUCCESS
from mtbench_runner.spending import Estimate
from mtbench_runner.store import InputError
from mtbench_runner.terminal import printable

STAND_IN_WARNING = "THE STAND-IN JUDGE FOLLOWS A FIXED RULE; ITS RATINGS MEASURE NOTHING"


# --- tables


def score_table(result: ScoreFile) -> str:
    """A result of `score`: by category and turn, errors by question, then what is missing."""
    lines = title(result, result["model_id"])
    lines += _scores(result)
    lines += _judges(result["judges"])
    lines += _noise(result)
    lines += _notes(result)
    lines += _lengths([(result["model_id"], result["answer_length"]["mean"])])
    lines += _seen(result)
    lines += _ending(result)
    return "\n".join(lines)


def pair_table(result: PairFile) -> str:
    """A result of `pairwise`: wins, win rates raw and at equal length, then what is missing."""
    lines = title(result, f"{result['model_id']} against {result['baseline']}")
    lines.append(f"win {result['win']}, tie {result['tie']}, loss {result['loss']}")
    if result["interval"] and result["overall"] is not None:
        low, high = result["interval"]
        rate = f"win rate, ties as half: {result['overall']:.1%}"
        drawn = _drawn_anew(result["judges"])
        lines.append(f"{rate} (95 % interval {low:.1%} to {high:.1%}; {drawn})")
    if controlled := result["length_controlled"]:
        low, high = controlled["low"], controlled["high"]
        rate = f"at equal length: {controlled['win_rate']:.1%}"
        lines.append(f"{rate} (95 % interval {low:.1%} to {high:.1%}; Dubois et al. 2024)")
    elif result["overall"] is not None:
        lines.append("at equal length: these answers and verdicts do not tell")
    lines += _positions(result)
    lines += _judges(result["judges"])
    lines += _moves("win rate", result["noise"], 100, " points")
    lines += _lengths(
        [
            (result["model_id"], result["answer_length"]["mean"]),
            (result["baseline"], result["baseline_length"]["mean"]),
        ]
    )
    return "\n".join([*lines, *_ending(result)])


def title(result: Summary, what: str) -> list[str]:
    """What a table is of, and the warning if its ratings measure nothing."""
    warning = [STAND_IN_WARNING] if result["stand_in"] else []
    return [f"{result['bench']}: {what}, judged by {result['judge']}", *warning]


def _scores(result: ScoreFile) -> list[str]:
    """A row for each category and one for all: the mean of each turn, of all turns, its error."""
    turns = list(result["turns"])
    titles = [f"turn {turn}" for turn in turns]
    lines = [_score_row("", [*titles, "mean"])]
    for name, mean in result["categories"].items():
        by_turn = result["category_turns"][name]
        cells = [number(by_turn.get(turn)) for turn in turns]
        error = result["stderr"]["categories"][name]
        lines.append(_score_row(name, [*cells, number(mean)], error))
    cells = list(map(number, result["turns"].values()))
    error = result["stderr"]["overall"]
    lines.append(_score_row("overall", [*cells, number(result["overall"])], error))
    return lines


def _score_row(name: str, cells: Sequence[str], error: float | None = None) -> str:
    """One line of the table of scores."""
    line = f"{name:<14}"
    for cell in cells:
        line += f"{cell:>9}"
    return line if error is None else f"{line}  ± {error:.2f}"


def _judges(judges: dict[str, JudgeSummary]) -> list[str]:
    """Each judge of a jury, or the one judge whose votes say something about it."""
    most_votes = max((judge["votes"] for judge in judges.values()), default=0)
    if len(judges) < 2 and most_votes < 2:
        return []
    lines = []
    for name, judge in judges.items():
        line = f"{name}: {number(judge['overall'])}"
        if judge["stderr"] is not None:
            line += f" ± {judge['stderr']:.2f}"
        line += f", votes {judge['votes']}"
        if judge["within"] is not None:
            line += f", spread within {judge['within']:.2f}"
        lines.append(line)
    return lines


def _noise(result: ScoreFile) -> list[str]:
    """How far the mean is to be trusted."""
    lines = _moves("mean", result["noise"])
    if result["interval"]:
        low, high = result["interval"]
        drawn = _drawn_anew(result["judges"])
        lines.append(f"95 % interval {low:.2f} to {high:.2f} ({drawn})")
    return lines


def _moves(what: str, noise: Noise, scale: float = 1, unit: str = "") -> list[str]:
    """By how much a mean would move were it judged again, or by other judges."""
    lines = []
    if noise["within_stderr"] is not None:
        moved = f"{scale * noise['within_stderr']:.2f}{unit}"
        lines.append(f"judged again, the {what} would move by ± {moved}")
    if noise["between_stderr"] is not None:
        moved = f"{scale * noise['between_stderr']:.2f}{unit}"
        lines.append(f"by other judges, the {what} would move by ± {moved} besides")
    return lines


def _drawn_anew(judges: Collection[str]) -> str:
    """What an interval lets vary."""
    if len(judges) > 1:
        return "questions, votes and judges drawn anew"
    return "questions and votes drawn anew"


def _notes(result: ScoreFile) -> list[str]:
    """The success rate, wrong references, and what strict reading would change."""
    lines = []
    if result["success_rate"] is not None:
        lines.append(f"success rate (turns scored {SUCCESS} or more): {result['success_rate']:.1%}")
    if result["known_wrong_references"]:
        wrong = ", ".join(map(str, result["known_wrong_references"]))
        lines.append(
            f"GPT-4's reference answer is wrong for {wrong} "
            "(FastChat #3158; --references takes others)"
        )
    if strict := result.get("strict"):
        lines += _strict(strict)
    return lines


def _strict(strict: Strict) -> list[str]:
    """What strict reading of the ratings would change, and where reading is doubtful."""
    line = f"strict reading of the ratings: {number(strict['overall'])}"
    if strict["change"] is not None:
        line += f" ({strict['change']:+.3f})"
    lines = [line]
    for flag, places in strict["flagged"].items():
        if places:
            named = [f"{question} turn {turn}" for question, turn in places]
            lines.append(f"{flag}: {', '.join(named)}")
    return lines


def _lengths(means: Sequence[tuple[str, float | None]]) -> list[str]:
    """The mean length of each model's answers, as far as there are any."""
    shown = []
    for name, mean in means:
        if mean is not None:
            shown.append(f"{name} {mean:,.0f}")
    return ["characters an answer: " + ", ".join(shown)] if shown else []


def _positions(result: PairFile) -> list[str]:
    """Whether the judge looks at which answer stands first."""
    if result["position_consistency"] is None:
        return []
    line = f"same verdict in both orders: {result['position_consistency']:.1%}"
    if result["first_position"] is not None:
        line += "; of contradictory ones, for the first answer both times: "
        line += f"{result['first_position']:.1%}"
    return [line]


def _seen(result: ScoreFile) -> list[str]:
    """What a person should know about answers and judgments before trusting the mean."""
    counts = result["counts"]
    texts = {
        "answers cut at the token limit": counts["truncated_answers"],
        "answers that were all thinking": counts["thinking_only_answers"],
        "answers without text": counts["empty_answers"],
        "judgments cut at the token limit (--again truncated)": counts["truncated_judgments"],
        "ratings outside 1 to 10": counts["out_of_range"],
    }
    if result["partly_judged"]:
        texts["turns that not all judges rated"] = result["partly_judged"]
    seen = [f"{count} {text}" for text, count in texts.items() if count]
    ratings: set[float | None] = set()
    for turns in result["per_question"].values():
        ratings.update(turns.values())
    if len(ratings) == 1 and result["n_expected"] > 2:
        seen.append("every rating is the same: this judge tells nothing apart here")
    return ["note: " + ", ".join(seen)] if seen else []


def _ending(result: Summary) -> list[str]:
    """What is missing and why, tokens and their cost, what is left out."""
    tokens = result["usage"]
    line = f"judge tokens: {tokens['prompt']} in, {tokens['completion']} out"
    if result["usage_unknown"]:
        line += f", unknown for {result['usage_unknown']} judgments"
    if result["cost_usd"] is not None:
        line += f", {result['cost_usd']:.2f} USD"
    lines = [
        f"turns: {result['n_expected']}, missing: {result['missing']}, "
        f"without a rating: {result['unparsable']}",
        line,
    ]
    if result["failures"]:
        causes = Counter(result["failures"]).elements()
        lines.insert(1, f"will not be had by asking again: {histogram(causes)}")
    if result["superseded"]:
        lines.append(f"{result['superseded']} superseded judgments are left out")
    return lines


def number(value: float | None) -> str:
    """Two decimals, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def estimates(found: Sequence[Estimate]) -> str:
    """What a dry run tells: calls, tokens and cost of each stage."""
    lines = []
    for part in found:
        tokens = (
            f"{part['prompt_tokens']:,} tokens in, {part['typical_completion_tokens']:,} out "
            f"(at most {part['most_completion_tokens']:,})"
        )
        line = f"{part['what']}: {part['calls']} calls, about {tokens}"
        if part["typical_cost_usd"] is not None:
            line += f", {part['typical_cost_usd']:.2f} USD (at most {part['most_cost_usd']:.2f})"
        lines.append(line)
    return "\n".join([*lines, "nothing was asked or written"])


# --- one question


def question(bench: Bench, wanted: str, models: list[str], judges: Sequence[str]) -> str:
    """Each model's turns and judgments of one question, side by side.

    Raises InputError for an unknown question.
    """
    asked = find(bench, wanted)
    parts = [_columns(models)]
    judged = [_judged(bench, model, judges) for model in models]
    for turn, text in enumerate(asked["turns"], 1):
        place = (asked["question_id"], turn)
        said = [_said(bench, model, place) for model in models]
        ratings = [_ratings(found, place) for found in judged]
        parts += [f"--- turn {turn}: {text}", _columns(said), _columns(ratings)]
    return "\n\n".join(parts)


def find(bench: Bench, wanted: str) -> Question:
    """The question of this id. Raises InputError if there is none."""
    for asked in bench.questions:
        if str(asked["question_id"]) == wanted:
            return asked
    first = bench.questions[0]["question_id"]
    last = bench.questions[-1]["question_id"]
    raise InputError(f"{bench.name} has no question {wanted}; it has {first} to {last}")


def _judged(bench: Bench, model: str, judges: Sequence[str]) -> dict[str, Current]:
    """What those judges said of a model that said anything."""
    found = {}
    for judge in judges:
        with contextlib.suppress(InputError):
            found[judge] = ledger.current(bench, judge, [model])
    return found


def _said(bench: Bench, model: str, place: Place) -> str:
    """What a model answered to a turn."""
    question, turn = place
    answer = bench.answers(model).get(question)
    if answer is None:
        return "(not answered)"
    return turns_of(answer)[turn - 1]


def _ratings(judged: dict[str, Current], place: Place) -> str:
    """Every vote of every judge on a turn, its score first."""
    shown = []
    for judge, current in judged.items():
        for row in current.judged.get(place, []):
            if "model" in row:
                shown.append(f"[{judge}: {row['score']}] {row['judgment']}")
    return "\n".join(shown) or "(not judged)"


def _columns(texts: list[str]) -> str:
    """The texts beside each other, as wide as the terminal."""
    terminal = shutil.get_terminal_size((120, 24))
    gaps = 3 * (len(texts) - 1)
    width = (terminal.columns - gaps) // len(texts)
    wrapped = [_wrap(text, width) for text in texts]
    lines = []
    for row in zip_longest(*wrapped, fillvalue=""):
        cells = [cell.ljust(width) for cell in row]
        lines.append(" | ".join(cells).rstrip())
    return "\n".join(lines)


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters; empty ones stay."""
    wrapped: list[str] = []
    for line in printable(text).splitlines():
        wrapped += textwrap.wrap(line, width) or [""]
    return wrapped


# --- figure


def radar(results: list[ScoreFile], path: Path) -> None:
    """Draw the category means of one or more models on one radar, as FastChat's figure does."""
    from matplotlib.figure import Figure

    names = list(results[0]["categories"])
    angles = [2 * pi * spoke / len(names) for spoke in range(len(names))]
    figure = Figure(figsize=(6, 6))
    axes = figure.add_subplot(projection="polar")
    for result in results:
        values = [result["categories"].get(name) or 0.0 for name in names]
        closed = [*values, values[0]]
        axes.plot([*angles, angles[0]], closed, marker="o", label=result["model_id"])
    axes.set_xticks(angles, names)
    axes.set_ylim(0, 10)
    axes.set_title("\n".join(title(results[0], "category means")), fontsize=9)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight")

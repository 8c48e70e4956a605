"""How long answers are, and a win rate that length does not explain.

Judges prefer longer answers, and preference tuning lengthens them. The length-controlled win rate
is that of Dubois, Galambosi, Liang and Hashimoto (2024), "Length-Controlled AlpacaEval" (arXiv
2404.04475), for one pair of models: a logistic regression of the verdict on the models and on
tanh(length difference / its standard deviation); the win rate is read off at equal length. Their
third term, the difficulty of an instruction, is the same for both models of a single pair and left
out.
"""

from collections.abc import Sequence
from math import exp, hypot, sqrt, tanh
from statistics import stdev
from typing import NamedTuple

from mtbench_runner.bench import Bench, turns_of
from mtbench_runner.rows import Length, Place, QuestionId
from mtbench_runner.statistics import average, squared_deviations, t_95

LEAST_SHARE = 0.1  # of comparisons in which a model's answer is the longer one
RIDGE = 0.01  # penalty on the length term, so that a perfect separation by length stays finite
STEPS = 50  # of Newton's method, which needs about six
CLOSE = 1e-10


class Comparison(NamedTuple):
    """One comparison: 1 win, 0.5 tie, 0 loss; and by how many characters the answer is longer."""

    question: QuestionId
    value: float
    longer: float


class Controlled(NamedTuple):
    """The win rate at equal length and its 95 % interval; what length adds on the logit scale."""

    win_rate: float
    low: float
    high: float
    length_effect: float


def lengths(bench: Bench, model_id: str) -> dict[Place, int]:
    """Characters of each answered turn."""
    answers = bench.answers(model_id)
    found = {}
    for question, turn in bench.places():
        if question in answers:
            turns = turns_of(answers[question])
            if turn <= len(turns):
                found[question, turn] = len(turns[turn - 1])
    return found


def summary(bench: Bench, model_id: str) -> Length:
    """Mean characters of a model's answers, in all and by turn."""
    found = lengths(bench, model_id)
    by_turn: dict[str, list[int]] = {}
    for (_, turn), length in found.items():
        by_turn.setdefault(str(turn), []).append(length)
    turns: dict[str, float | None] = {}
    for name, values in by_turn.items():
        turns[name] = average(values)
    mean = average(list(found.values())) if found else None
    return Length(mean=mean, turns=turns)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), of large negative x too."""
    if x >= 0:
        return 1 / (1 + exp(-x))
    return exp(x) / (1 + exp(x))


def controlled(
    comparisons: Sequence[Comparison], by_judge: Sequence[Sequence[Comparison]] = ()
) -> Controlled | None:
    """The win rate at equal length; None below two questions, or where the data do not tell it.

    They do not where the same model's answers are nearly always the longer ones (equal length is
    then far outside of what was seen) or where every verdict is the same.

    Maximises the log-likelihood of the verdicts y (0, 0.5 or 1) under p = sigmoid(theta + phi x),
    x = tanh(d / sd(d)), with half a win and half a loss at x = 0 added, so that theta stays finite
    when one model wins always, and a ridge on phi. The interval is theta's, with the sandwich
    variance clustered by question; with the comparisons of several judges, also with how their own
    thetas differ.
    """
    questions = {comparison.question for comparison in comparisons}
    if len(questions) < 2 or not _tells(comparisons):
        return None
    features, values = _columns(comparisons)
    theta, phi = fit(features, values)
    by_question = t_95(len(questions)) * _stderr(comparisons, features, theta, phi)
    error = hypot(by_question, _judges_part(by_judge))
    return Controlled(
        win_rate=sigmoid(theta),
        low=sigmoid(theta - error),
        high=sigmoid(theta + error),
        length_effect=phi,
    )


def _columns(comparisons: Sequence[Comparison]) -> tuple[list[float], list[float]]:
    """The length features of comparisons, and their verdicts."""
    features = length_features([comparison.longer for comparison in comparisons])
    values = [comparison.value for comparison in comparisons]
    return features, values


def _judges_part(by_judge: Sequence[Sequence[Comparison]]) -> float:
    """Half the width of an interval of theta that would hold other judges'; 0 below two judges."""
    thetas = []
    for comparisons in by_judge:
        features, values = _columns(comparisons)
        theta, _ = fit(features, values)
        thetas.append(theta)
    if len(thetas) < 2:
        return 0.0
    return t_95(len(thetas)) * stdev(thetas) / sqrt(len(thetas))


def _tells(comparisons: Sequence[Comparison]) -> bool:
    """Whether answers of each model are the longer ones often enough, and verdicts differ."""
    longer = shorter = 0
    values = set()
    for comparison in comparisons:
        longer += comparison.longer > 0
        shorter += comparison.longer < 0
        values.add(comparison.value)
    rarer = min(longer, shorter)
    one_sided = longer + shorter > 0 and rarer < LEAST_SHARE * len(comparisons)
    return not one_sided and len(values) > 1


def length_features(differences: Sequence[float]) -> list[float]:
    """tanh of the differences over their standard deviation (about their mean)."""
    squares = squared_deviations(differences, average(differences))
    spread = sqrt(squares / len(differences))
    if not spread:
        return [0.0] * len(differences)
    return [tanh(difference / spread) for difference in differences]


def fit(features: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """theta and phi by Newton's method on the penalised log-likelihood, which is concave."""
    theta = phi = 0.0
    for _ in range(STEPS):
        slope_theta, slope_phi = _gradient(features, values, theta, phi)
        a, b, c = _information(features, theta, phi)
        determinant = a * c - b * b
        step_theta = (c * slope_theta - b * slope_phi) / determinant
        step_phi = (a * slope_phi - b * slope_theta) / determinant
        theta += step_theta
        phi += step_phi
        if abs(step_theta) + abs(step_phi) < CLOSE:
            break
    return theta, phi


def _gradient(
    features: Sequence[float], values: Sequence[float], theta: float, phi: float
) -> tuple[float, float]:
    """The slopes of the penalised log-likelihood along theta and phi."""
    slope_theta = 0.5 - sigmoid(theta)  # the added half win and half loss
    slope_phi = -RIDGE * phi
    for x, y in zip(features, values, strict=True):
        residual = y - sigmoid(theta + phi * x)
        slope_theta += residual
        slope_phi += residual * x
    return slope_theta, slope_phi


def _information(features: Sequence[float], theta: float, phi: float) -> tuple[float, float, float]:
    """The negative Hessian [[a, b], [b, c]]."""
    p = sigmoid(theta)
    a, b, c = p * (1 - p), 0.0, RIDGE
    for x in features:
        p = sigmoid(theta + phi * x)
        weight = p * (1 - p)
        a += weight
        b += weight * x
        c += weight * x * x
    return a, b, c


def _stderr(
    comparisons: Sequence[Comparison], features: Sequence[float], theta: float, phi: float
) -> float:
    """Clustered standard error of theta: the sandwich of information and squared cluster scores."""
    scores: dict[QuestionId, list[float]] = {}
    for comparison, x in zip(comparisons, features, strict=True):
        residual = comparison.value - sigmoid(theta + phi * x)
        score = scores.setdefault(comparison.question, [0.0, 0.0])
        score[0] += residual
        score[1] += residual * x
    a, b, c = _information(features, theta, phi)
    determinant = a * c - b * b
    squares = []
    for of_theta, of_phi in scores.values():
        influence = (c * of_theta - b * of_phi) / determinant
        squares.append(influence * influence)
    clusters = len(scores)
    return sqrt(clusters / (clusters - 1) * sum(squares))

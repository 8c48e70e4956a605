"""The report's figures as SVG, in middle tones on no background, for light and for dark pages.

Places are fixed and nothing is measured twice, so that the figures of twenty runs take seconds.
"""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import pi
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from results.compare import Row
from results.report.page import visible

BEFORE, AFTER, LOG, INK = "#8b949e", "#2f81f7", "#d97706", "#777777"
STYLE = {
    "svg.hashsalt": "tatqa-bench",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a run may be called $x$
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
LONGEST_TITLE = 75  # characters
MOST_POINTS = 120  # of a training curve
GAP = 4.0  # columns between the points of one beta and those of the next
Point = tuple[float, float, float, float]  # beta, delta, low, high in the unit shown


def svg(figure: Figure) -> str:
    """The figure as text that depends on its content alone."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return out.getvalue()


def short(title: str) -> str:
    """A title that fits over a figure."""
    title = visible(title)
    return title if len(title) <= LONGEST_TITLE else title[: LONGEST_TITLE - 1] + "…"


@matplotlib.rc_context(STYLE)
def by_group(rows: Sequence[Row], title: str) -> str:
    """Before and after of each group; whiskers: the interval of the difference, from `before`."""
    height = 1.2 + 0.45 * len(rows)
    figure = Figure(figsize=(7.2, height))
    axes = figure.add_axes((0.26, 0.85 / height, 0.7, (height - 1.2) / height))
    values, labels = [], []
    for row in rows:
        d = row.difference
        values.append((d.before, d.after, d.delta, d.low, d.high))
        labels.append(f"{visible(row.group)} (n = {d.n})")
    before, after, delta, low, high = np.array(values).T * rows[0].measure.factor
    places = range(len(rows))
    whiskers = np.maximum(0, [delta - low, high - delta])
    label = "after, 95 % interval of the difference"
    axes.errorbar(after, places, xerr=whiskers, fmt="o", color=AFTER, capsize=4, label=label)
    axes.scatter(
        before, places, facecolors="none", edgecolors=BEFORE, s=70, label="before", zorder=3
    )
    axes.set_yticks(places, labels)
    axes.set(ylim=(len(rows) - 0.5, -0.5))
    figure.suptitle(short(title), fontsize="medium", y=1 - 0.1 / height, va="top")
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=2)
    return svg(figure)


@dataclass(frozen=True)
class BetaPanel:
    """Deltas of one metric against beta: those measured here, and the log's (beta, delta)."""

    title: str
    here: Sequence[Point]
    log: Sequence[tuple[float, float]]


@matplotlib.rc_context(STYLE)
def against_beta(panels: Sequence[BetaPanel]) -> str:
    """Delta against beta, a panel a metric: measured points with intervals, the log's hollow."""
    figure = Figure(figsize=(7.6, 3.4))
    figure.subplots_adjust(left=0.08, right=0.98, top=0.9, bottom=0.28, wspace=0.25)
    all_axes = figure.subplots(1, len(panels))
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.axhline(0, color=INK, linewidth=0.8)
        here, log = sorted(panel.here), sorted(panel.log)
        betas_here = [point[0] for point in here]
        betas_log = [point[0] for point in log]
        columns = columns_of(betas_here, betas_log)
        middles = [begin + width / 2 for begin, width in columns.values()]
        axes.set_xticks(middles, [f"{beta:g}" for beta in columns], fontsize="small")
        _, delta = np.array(log).T
        label = "the log, measured another way"
        x = side_by_side(betas_log, columns)
        axes.scatter(x, delta, facecolors="none", edgecolors=LOG, label=label)
        _, delta, low, high = np.reshape(here, (-1, 4)).T
        whiskers = [delta - low, high - delta]
        label = "measured here, 95 % interval"
        x = side_by_side(betas_here, columns)
        axes.errorbar(
            x, delta, whiskers, fmt="o", markersize=4, color=AFTER, capsize=2, label=label
        )
        axes.set(title=panel.title, xlabel="beta")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="lower center", ncols=2)
    return svg(figure)


def columns_of(here: Sequence[float], log: Sequence[float]) -> dict[float, tuple[float, int]]:
    """Where the columns of each beta begin, and how many: as many as it has points of one kind."""
    of_here, of_log = Counter(here), Counter(log)
    found = {}
    begin = 0.0
    for beta in sorted(of_here | of_log):
        columns = max(of_here[beta], of_log[beta])
        found[beta] = begin, columns
        begin += columns + GAP
    return found


def side_by_side(betas: Sequence[float], columns: Mapping[float, tuple[float, int]]) -> list[float]:
    """An x for each point: those of one beta are spread evenly over its columns."""
    found = []
    met: Counter[float] = Counter()
    alike = Counter(betas)
    for beta in betas:
        begin, width = columns[beta]
        found.append(begin + width * (met[beta] + 0.5) / alike[beta])
        met[beta] += 1
    return found


@matplotlib.rc_context(STYLE)
def training(history: Sequence[dict[str, Any]], title: str) -> str:
    """Loss, reward accuracy and reward margin against the optimizer step, as far as logged."""
    curves = {}
    for key in ("loss", "rewards/accuracies", "rewards/margins"):
        curve = []
        for entry in history:
            if "step" in entry and key in entry:
                curve.append((entry["step"], entry[key]))
        if curve:
            curves[key] = curve
    figure = Figure(figsize=(7.6, 2.6))
    figure.subplots_adjust(left=0.07, right=0.98, top=0.76, bottom=0.2, wspace=0.25)
    figure.suptitle(short(title), fontsize="medium")
    all_axes = np.atleast_1d(figure.subplots(1, max(len(curves), 1)))
    for axes, (key, curve) in zip(all_axes, curves.items(), strict=False):
        steps, values = thinned(curve)
        axes.plot(steps, values, color=AFTER)
        axes.set_title(key, fontsize="medium")
        axes.set_xlabel("step")
    return svg(figure)


def thinned(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Steps and values, as means of equal parts where there are more than a figure shows."""
    steps, values = [], []
    number = min(len(points), MOST_POINTS)
    for part in np.array_split(np.array(points, float), number):
        step, value = part.mean(axis=0)
        steps.append(float(step))
        values.append(float(value))
    return steps, values


@matplotlib.rc_context(STYLE)
def radar(rows: Sequence[Row], title: str) -> str:
    """Mean rating by category, before and after."""
    figure = Figure(figsize=(6, 4.4))
    axes = figure.add_axes((0.2, 0.1, 0.5, 0.68), projection="polar")
    angles = [2 * pi * i / len(rows) for i in range(len(rows))]
    before, after, labels = [], [], []
    for row in rows:
        before.append(row.difference.before)
        after.append(row.difference.after)
        labels.append(visible(row.group))
    closed = [*angles, angles[0]]
    axes.plot(closed, [*before, before[0]], color=BEFORE, label="before")
    axes.plot(closed, [*after, after[0]], color=AFTER, label="after")
    axes.set_xticks(angles, labels)
    axes.set_ylim(0, 10)
    axes.grid(color=INK, alpha=0.3)
    figure.suptitle(short(title), fontsize="medium")
    figure.legend(*axes.get_legend_handles_labels(), loc="lower right")
    return svg(figure)

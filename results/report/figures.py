"""The report's figures as SVG, in middle tones on no background, for light and for dark pages.

Places are fixed and nothing is measured twice, so that the figures of twenty runs take seconds.
"""

import io
from collections.abc import Mapping, Sequence
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
    found = [(d.before, d.after, d.delta, d.low, d.high) for d in (row.difference for row in rows)]
    before, after, delta, low, high = np.array(found).T * rows[0].measure.factor
    places = range(len(rows))
    whiskers = np.maximum(0, [delta - low, high - delta])
    label = "after, 95 % interval of the difference"
    axes.errorbar(after, places, xerr=whiskers, fmt="o", color=AFTER, capsize=4, label=label)
    axes.scatter(
        before, places, facecolors="none", edgecolors=BEFORE, s=70, label="before", zorder=3
    )
    axes.set_yticks(places, [f"{visible(row.group)} (n = {row.difference.n})" for row in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5))
    figure.suptitle(short(title), fontsize="medium", y=1 - 0.1 / height, va="top")
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=2)
    return svg(figure)


@matplotlib.rc_context(STYLE)
def against_beta(
    panels: Mapping[str, tuple[Sequence[Point], Sequence[tuple[float, float]]]],
) -> str:
    """Delta against beta, a panel a metric: measured points with intervals, the log's hollow."""
    figure = Figure(figsize=(7.6, 3.4))
    figure.subplots_adjust(left=0.08, right=0.98, top=0.9, bottom=0.28, wspace=0.25)
    all_axes = figure.subplots(1, len(panels))
    for axes, (title, (here, log)) in zip(all_axes, panels.items(), strict=True):
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.scatter(
            *zip(*log, strict=True),
            facecolors="none",
            edgecolors=LOG,
            label="the log, measured another way",
        )
        beta, delta, low, high = np.reshape(here, (-1, 4)).T
        whiskers = [delta - low, high - delta]
        label = "measured here, 95 % interval"
        axes.errorbar(beta, delta, whiskers, fmt="o", color=AFTER, capsize=4, label=label)
        axes.set(title=title, xlabel="beta")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="lower center", ncols=2)
    return svg(figure)


@matplotlib.rc_context(STYLE)
def training(history: Sequence[dict[str, Any]], title: str) -> str:
    """Loss, reward accuracy and reward margin against the optimizer step, as far as logged."""
    history = [entry for entry in history if "step" in entry]
    keys = [
        key
        for key in ("loss", "rewards/accuracies", "rewards/margins")
        if any(key in entry for entry in history)
    ]
    figure = Figure(figsize=(7.6, 2.6))
    figure.subplots_adjust(left=0.07, right=0.98, top=0.76, bottom=0.2, wspace=0.25)
    figure.suptitle(short(title), fontsize="medium")
    for axes, key in zip(np.atleast_1d(figure.subplots(1, max(len(keys), 1))), keys, strict=False):
        steps, values = thinned([(e["step"], e[key]) for e in history if key in e])
        axes.plot(steps, values, color=AFTER)
        axes.set_title(key, fontsize="medium")
        axes.set_xlabel("step")
    return svg(figure)


def thinned(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Steps and values, as means of equal parts where there are more than a figure shows."""
    parts = np.array_split(np.array(points, float), min(len(points), MOST_POINTS))
    means = [part.mean(axis=0) for part in parts]
    return [float(mean[0]) for mean in means], [float(mean[1]) for mean in means]


@matplotlib.rc_context(STYLE)
def radar(rows: Sequence[Row], title: str) -> str:
    """Mean rating by category, before and after."""
    figure = Figure(figsize=(6, 4.4))
    axes = figure.add_axes((0.2, 0.1, 0.5, 0.68), projection="polar")
    angles = [2 * pi * i / len(rows) for i in range(len(rows))]
    for name, color in (("before", BEFORE), ("after", AFTER)):
        values = [getattr(row.difference, name) for row in rows]
        axes.plot([*angles, angles[0]], [*values, values[0]], color=color, label=name)
    axes.set_xticks(angles, [visible(row.group) for row in rows])
    axes.set_ylim(0, 10)
    axes.grid(color=INK, alpha=0.3)
    figure.suptitle(short(title), fontsize="medium")
    figure.legend(*axes.get_legend_handles_labels(), loc="lower right")
    return svg(figure)

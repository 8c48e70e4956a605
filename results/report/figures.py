"""The report's figures as SVG, in middle tones on no background, so that they read on light and on dark pages."""

import io
from collections.abc import Mapping, Sequence
from math import pi
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from results.compare import Row

BEFORE, AFTER, LOG, INK = "#8b949e", "#2f81f7", "#d97706", "#777777"
STYLE = {
    "svg.hashsalt": "tatqa-bench", "svg.fonttype": "none", "text.parse_math": False, "font.family": "DejaVu Sans", "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    **dict.fromkeys(["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], INK),
}  # fmt: skip
Point = tuple[float, float, float, float]  # beta, delta, low, high in the unit shown


def svg(figure: Figure) -> str:
    """The figure as text that depends on its content alone."""
    out = io.StringIO()
    figure.savefig(
        out, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None}
    )
    return out.getvalue()


@matplotlib.rc_context(STYLE)
def by_group(rows: Sequence[Row], title: str) -> str:
    """Before and after of each group; whiskers: the 95 % interval of the difference, measured from `before`."""
    figure = Figure(figsize=(6.4, 0.6 + 0.55 * len(rows)))
    axes = figure.subplots()
    found = [(d.before, d.after, d.delta, d.low, d.high) for d in (row.difference for row in rows)]
    before, after, delta, low, high = np.array(found).T * rows[0].measure.factor
    places, label = range(len(rows)), "after, 95 % interval of the difference"
    whiskers = np.maximum(0, [delta - low, high - delta])
    axes.errorbar(after, places, xerr=whiskers, fmt="o", color=AFTER, capsize=4, label=label)
    axes.scatter(
        before, places, facecolors="none", edgecolors=BEFORE, s=70, label="before", zorder=3
    )
    axes.set_yticks(places, [f"{row.group} (n = {row.difference.n})" for row in rows])
    axes.set(title=title, ylim=(len(rows) - 0.5, -0.5))
    figure.legend(
        *axes.get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2
    )
    return svg(figure)


@matplotlib.rc_context(STYLE)
def against_beta(
    panels: Mapping[str, tuple[Sequence[Point], Sequence[tuple[float, float]]]],
) -> str:
    """Delta against beta, a panel a metric: measured points with intervals, the log's figures as hollow marks."""
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    for axes, (title, (here, log)) in zip(
        figure.subplots(1, len(panels)), panels.items(), strict=True
    ):
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.scatter(
            *zip(*log, strict=True),
            facecolors="none",
            edgecolors=LOG,
            label="the log, measured another way",
        )
        beta, delta, low, high = np.reshape(here, (-1, 4)).T
        whiskers, label = [delta - low, high - delta], "measured here, 95 % interval"
        axes.errorbar(beta, delta, yerr=whiskers, fmt="o", color=AFTER, capsize=4, label=label)
        ticks = sorted({point[0] for point in [*here, *log]})
        axes.set(title=title, xlabel="beta", xscale="log")
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return svg(figure)


@matplotlib.rc_context(STYLE)
def training(history: Sequence[dict[str, Any]], title: str) -> str:
    """Loss, reward accuracy and reward margin against the optimizer step."""
    figure = Figure(figsize=(7.6, 2.6), layout="constrained")
    figure.suptitle(title)
    for axes, key in zip(
        figure.subplots(1, 3), ("loss", "rewards/accuracies", "rewards/margins"), strict=True
    ):
        logged = [entry for entry in history if key in entry]
        axes.plot(
            [entry["step"] for entry in logged], [entry[key] for entry in logged], color=AFTER
        )
        axes.set(title=key, xlabel="step")
    return svg(figure)


@matplotlib.rc_context(STYLE)
def radar(rows: Sequence[Row], title: str) -> str:
    """Mean rating by category, before and after."""
    figure = Figure(figsize=(5, 4))
    axes = figure.subplots(subplot_kw={"projection": "polar"})
    angles = [2 * pi * i / len(rows) for i in range(len(rows))]
    for name, color in (("before", BEFORE), ("after", AFTER)):
        values = [getattr(row.difference, name) for row in rows]
        axes.plot([*angles, 0], [*values, values[0]], color=color, label=name)
    axes.set_xticks(angles, [row.group for row in rows])
    axes.set(ylim=(0, 10), title=title)
    axes.grid(color=INK, alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.1, 1))
    return svg(figure)

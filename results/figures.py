"""The report's figures as SVG, drawn in middle tones on no background, so that they read on light and on dark pages."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from results.compare import Row, measure

BEFORE, AFTER, INK = "#8b949e", "#2f81f7", "#777777"
STYLE = {
    "svg.hashsalt": "tatqa-bench", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "font.family": "DejaVu Sans", "legend.frameon": False,
    **dict.fromkeys(["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], INK),
}  # fmt: skip


def svg(figure: Figure) -> str:
    """The figure as text that depends on nothing but its content."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def by_group(rows: Sequence[Row], title: str) -> str:
    """Before and after of each group as bars; whiskers: the 95 % interval of the difference, drawn from `before`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.2))
        axes = figure.subplots()
        for i, row in enumerate(rows):
            d, factor = row.difference, measure(row.metric).factor
            axes.bar(i - 0.2, d.before * factor, 0.38, color=BEFORE, label="before" if i == 0 else None)
            axes.bar(i + 0.2, d.after * factor, 0.38, color=AFTER, label="after" if i == 0 else None)
            ends = [[max(0, d.delta - d.low) * factor], [max(0, d.high - d.delta) * factor]]
            axes.errorbar(i + 0.2, d.after * factor, yerr=ends, color=INK, capsize=4)
        axes.set_xticks(range(len(rows)), [f"{row.group}\nn = {row.difference.n}" for row in rows])
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        return svg(figure)


Point = tuple[float, float, float, float]  # beta, delta, low, high, in the unit shown


def against_beta(panels: Mapping[str, tuple[Sequence[Point], Sequence[tuple[float, float]]]]) -> str:
    """Delta against beta, one panel a metric: measured points with intervals, the log's figures as hollow marks."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 3.2), layout="constrained")
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, (here, log)) in zip(all_axes, panels.items(), strict=True):
            axes.axhline(0, color=INK, linewidth=0.8)
            axes.scatter([x for x, _ in log], [y for _, y in log], facecolors="none", edgecolors="#d97706",
                         label="log, measured another way")  # fmt: skip
            for i, (beta, delta, low, high) in enumerate(here):
                label = "measured here, 95 % interval" if i == 0 else None
                ends = [[delta - low], [high - delta]]
                axes.errorbar(beta, delta, yerr=ends, fmt="o", color=AFTER, capsize=4, label=label)
            axes.set(title=title, xlabel="beta", xscale="log")
            ticks = sorted({x for x, *_ in [*here, *log]})
            axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
            axes.minorticks_off()
        axes.legend(loc="upper center", bbox_to_anchor=(0, -0.25), ncols=2)
        return svg(figure)


def training(history: Sequence[dict[str, Any]], title: str) -> str:
    """Loss, reward accuracy and reward margin against the optimizer step."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 2.6), layout="constrained")
        figure.suptitle(title)
        for axes, key in zip(figure.subplots(1, 3), ("loss", "rewards/accuracies", "rewards/margins"), strict=True):
            points = [(entry["step"], entry[key]) for entry in history if key in entry]
            axes.plot([x for x, _ in points], [y for _, y in points], color=AFTER)
            axes.set(title=key, xlabel="step")
        return svg(figure)


def radar(rows: Sequence[Row], title: str) -> str:
    """Mean rating by category, before and after."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 4))
        axes = figure.subplots(subplot_kw={"projection": "polar"})
        angles = [2 * 3.141592653589793 * i / len(rows) for i in range(len(rows) + 1)]
        for name, color in (("before", BEFORE), ("after", AFTER)):
            values = [getattr(row.difference, name) for row in rows]
            axes.plot(angles, [*values, values[0]], color=color, label=name)
        axes.set_xticks(angles[:-1], [row.group for row in rows])
        axes.set_ylim(0, 10)
        axes.grid(color=INK, alpha=0.3)
        axes.set_title(title)
        axes.legend(loc="upper left", bbox_to_anchor=(1.1, 1))
        return svg(figure)

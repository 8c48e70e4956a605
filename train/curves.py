"""The curves of a run as one SVG: loss, reward accuracy, reward margin and beta over its steps.

Written by hand: importing a plotting library and drawing with it would take as long as ten steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import cycle

CURVES = {
    "loss": "loss",
    "reward accuracy": "rewards/accuracies",
    "reward margin": "rewards/margins",
    "beta": "beta",
}
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd")
WIDTH, HEIGHT = 300, 220  # of one panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 28, 32  # its margins


def curves(history: Sequence[Mapping[str, float]]) -> str:
    """The SVG. history: entries with `step` and whatever was logged; at least one."""
    body = '<path fill="#fff" d="M0 0H9999V9999H0Z"/>'
    left = 0
    for title, names in panels(history[0]):
        drawing = panel(title, names, history)
        body += f'<g transform="translate({left} 0)">{drawing}</g>'
        left += WIDTH
    size = f'width="{left}" height="{HEIGHT}"'
    style = 'font-family="sans-serif" font-size="11"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{body}</svg>\n'


def panels(entry: Mapping[str, float]) -> Iterator[tuple[str, list[str]]]:
    """Title and curves of each panel; supervised training has no rewards."""
    for title, key in CURVES.items():
        names = [key] if key in entry else []
        names += sorted(name for name in entry if name.startswith(f"{title}/"))
        if names:
            yield title, names


def panel(title: str, names: Sequence[str], history: Sequence[Mapping[str, float]]) -> str:
    """One panel: a frame with the range of both axes, a line for each name."""
    first, last = history[0]["step"], history[-1]["step"]
    values: list[float] = []
    for name in names:
        values += [entry[name] for entry in history]
    low, high = min(values), max(values)
    svg = frame(title, (first, last), (low, high))
    for name, colour in zip(names, cycle(COLOURS), strict=False):
        points = []
        for entry in history:
            x = place(entry["step"], first, last, LEFT, WIDTH - RIGHT)
            y = place(entry[name], low, high, HEIGHT - BOTTOM, TOP)
            points.append(f"{x:.1f},{y:.1f}")
        svg += f'<polyline fill="none" stroke="{colour}" points="{" ".join(points)}">'
        svg += f"<title>{escape(name)}</title></polyline>"
    if len(names) > 1:
        svg += legend(names)
    return svg


def place(value: float, low: float, high: float, start: float, end: float) -> float:
    """Where a value lies between two pixels; in the middle if all values are one."""
    share = (value - low) / (high - low) if high > low else 0.5
    return start + share * (end - start)


def frame(title: str, steps: tuple[float, float], values: tuple[float, float]) -> str:
    """The panel's box, title, and the first and last number of both axes."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    box = f'x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}"'
    return (
        f'<rect {box} fill="none" stroke="#999"/>'
        + text(title, (LEFT + right) / 2, TOP - 10, "middle")
        + text(f"{values[0]:.4g}", LEFT - 4, bottom, "end")
        + text(f"{values[1]:.4g}", LEFT - 4, TOP + 8, "end")
        + text(f"{steps[0]:g}", LEFT, bottom + 14, "start")
        + text("step", (LEFT + right) / 2, bottom + 14, "middle")
        + text(f"{steps[1]:g}", right, bottom + 14, "end")
    )


def legend(names: Sequence[str]) -> str:
    """The names of a panel's lines, in their colours."""
    svg = ""
    height = TOP + 14
    for name, colour in zip(names, cycle(COLOURS), strict=False):
        svg += text(name, LEFT + 6, height, "start", colour)
        height += 12
    return svg


def text(words: str, x: float, y: float, anchor: str, colour: str = "#333") -> str:
    """A line of text at a place."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'

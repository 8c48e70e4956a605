"""Pages from blocks: markdown for code hosts, and one HTML file that works without network.

Model output is shown as text, never as markup, and control characters that reorder text are shown
as their escapes.
"""

import base64
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
EXAMPLE_HEADER = ["", "question", "right answer", "before", "after"]
# ("h1".."h4" | "p" | "li" | "code", text), ("table", rows),
# ("examples", rows under EXAMPLE_HEADER),
# ("figure", (file, alt, svg))
Block = tuple[str, Any]
# characters that change the direction of the text after them (Unicode Standard Annex 9), and such
# as no XML may hold: control characters and halves of surrogate pairs
ESCAPED = re.compile(
    "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)


def from_template(name: str, parts: Mapping[str, Iterable[Block]], **facts: Any) -> Iterator[Block]:
    """Blocks of a template, a line each, with the facts put in.

    A line is `# heading`, `- item`, `@part@` or a paragraph.
    """
    for line in (TEMPLATES / name).read_text(encoding="utf-8").format(**facts).splitlines():
        mark, _, rest = line.partition(" ")
        if line.strip("@") in parts:
            yield from parts[line.strip("@")]
        elif line and set(mark) == {"#"}:
            yield f"h{len(mark)}", rest
        elif line:
            yield ("li", rest) if mark == "-" else ("p", line)


def visible(text: str) -> str:
    """The text with characters that would reorder what follows, or are none, shown as escapes."""
    return ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def markdown(blocks: Iterable[Block]) -> str:
    """The page as markdown."""
    text = "\n\n".join(_markdown(kind, item) for kind, item in blocks) + "\n"
    return visible(re.sub(r"(?m)^(- .*)\n\n(?=- )", r"\1\n", text))


def _markdown(kind: str, item: Any) -> str:
    if kind == "table":
        return markdown_table(item)
    if kind == "examples":
        return markdown_table([EXAMPLE_HEADER, *item])
    if kind == "figure":
        return f"![{item[1]}](figures/{item[0]})"
    if kind == "code":
        return f"```\n{item}\n```"
    marks = {"p": "", "li": "- "} | {f"h{n}": "#" * n + " " for n in range(1, 5)}
    return marks[kind] + " ".join(str(item).split())


def markdown_table(rows: list[list[str]]) -> str:
    """Rows of cells, the first one the header; no cell can break the table."""
    lines = [" | ".join(_cell(cell) for cell in row) for row in rows]
    lines.insert(1, " | ".join(["---"] * len(rows[0])))
    return "\n".join(f"| {line} |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"([|<*`\\])", r"\\\1", " ".join(text.split()))


def html(blocks: list[Block], questions: Mapping[str, Any]) -> str:
    """The page as one file.

    No `<` is left in the embedded JSON, so nothing in it can end the script element. The questions
    are compressed (zlib, base64): the browser unpacks them when they are first asked for.
    """
    shown = [(kind, item if kind == "figure" else _visible_item(item)) for kind, item in blocks]
    data = json.dumps(shown).replace("<", "\\u003c")
    packed = zlib.compress(json.dumps(questions).encode(), 9) if questions["questions"] else b""
    template = (TEMPLATES / "page.html").read_text(encoding="utf-8")
    replies = base64.b64encode(packed).decode()
    return template.replace("{{blocks}}", data).replace("{{replies}}", replies)


def _visible_item(item: Any) -> Any:
    if isinstance(item, str):
        return visible(item)
    return [_visible_item(part) for part in item]

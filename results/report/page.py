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
MARKS = {"p": "", "li": "- ", "h1": "# ", "h2": "## ", "h3": "### ", "h4": "#### "}
# characters that change the direction of the text after them (Unicode Standard Annex 9), and such
# as no XML may hold: control characters and halves of surrogate pairs
ESCAPED = re.compile(
    "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)


def from_template(name: str, parts: Mapping[str, Iterable[Block]], **facts: Any) -> Iterator[Block]:
    """Blocks of a template, a line each, with the facts put in.

    A line is `# heading`, `- item`, `@part@` or a paragraph.
    """
    template = (TEMPLATES / name).read_text(encoding="utf-8")
    for line in template.format(**facts).splitlines():
        part = line.strip("@")
        mark, _, rest = line.partition(" ")
        if part in parts:
            yield from parts[part]
        elif mark and not mark.strip("#"):
            yield f"h{len(mark)}", rest
        elif mark == "-":
            yield "li", rest
        elif line:
            yield "p", line


def visible(text: str) -> str:
    """The text with characters that would reorder what follows, or are none, shown as escapes."""
    return ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def markdown(blocks: Iterable[Block]) -> str:
    """The page as markdown."""
    paragraphs = [_markdown(kind, item) for kind, item in blocks]
    text = "\n\n".join(paragraphs) + "\n"
    one_list = re.sub(r"(?m)^(- .*)\n\n(?=- )", r"\1\n", text)  # no empty lines between its items
    return visible(one_list)


def _markdown(kind: str, item: Any) -> str:
    if kind == "table":
        return markdown_table(item)
    if kind == "examples":
        return markdown_table([EXAMPLE_HEADER, *item])
    if kind == "figure":
        file, alt, _ = item
        return f"![{alt}](figures/{file})"
    if kind == "code":
        return f"```\n{item}\n```"
    return MARKS[kind] + " ".join(str(item).split())


def markdown_table(rows: list[list[str]]) -> str:
    """Rows of cells, the first one the header; no cell can break the table."""
    header, *others = [_line(row) for row in rows]
    rule = "| " + " | ".join(["---"] * len(rows[0])) + " |"
    return "\n".join([header, rule, *others])


def _line(cells: list[str]) -> str:
    escaped = []
    for cell in cells:
        text = " ".join(cell.split())
        escaped.append(re.sub(r"([|<*`\\])", r"\\\1", text))
    return "| " + " | ".join(escaped) + " |"


def html(blocks: list[Block], questions: Mapping[str, Any]) -> str:
    """The page as one file.

    No `<` is left in the embedded JSON, so nothing in it can end the script element. The questions
    are compressed (zlib, base64): the browser unpacks them when they are first asked for.
    """
    shown = []
    for kind, item in blocks:
        shown.append((kind, item if kind == "figure" else _visible_item(item)))
    data = json.dumps(shown).replace("<", "\\u003c")
    packed = b""
    if questions["questions"]:
        packed = zlib.compress(json.dumps(questions).encode(), 9)
    replies = base64.b64encode(packed).decode()
    template = (TEMPLATES / "page.html").read_text(encoding="utf-8")
    return template.replace("{{blocks}}", data).replace("{{replies}}", replies)


def _visible_item(item: Any) -> Any:
    if isinstance(item, str):
        return visible(item)
    return [_visible_item(part) for part in item]

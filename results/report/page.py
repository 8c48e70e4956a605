"""Pages from blocks: markdown for code hosts, and one HTML file that works without network and shows model output as
text, never as markup."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"
Block = tuple[
    str, Any
]  # ("h1".."h4" | "p" | "li" | "code", text), ("table", rows), ("figure", (file, alt, svg))


def from_template(name: str, parts: Mapping[str, Iterable[Block]], **facts: Any) -> Iterator[Block]:
    """Blocks of a template, a line each: `# heading`, `- item`, `@part@` or a paragraph, with the facts put in."""
    for line in (TEMPLATES / name).read_text(encoding="utf-8").format(**facts).splitlines():
        mark, _, rest = line.partition(" ")
        if line.strip("@") in parts:
            yield from parts[line.strip("@")]
        elif line:
            kind = f"h{len(mark)}" if set(mark) == {"#"} else "li" if mark == "-" else "p"
            yield kind, line if kind == "p" else rest


def markdown(blocks: Iterable[Block]) -> str:
    """The page as markdown."""
    text = "\n\n".join(_markdown(kind, item) for kind, item in blocks) + "\n"
    return re.sub(r"(?m)^(- .*)\n\n(?=- )", r"\1\n", text)


def _markdown(kind: str, item: Any) -> str:
    if kind == "table":
        rows = [" | ".join(re.sub(r"([|<*`\\])", r"\\\1", cell) for cell in row) for row in item]
        return "\n".join(
            f"| {row} |" for row in [rows[0], " | ".join(["---"] * len(item[0])), *rows[1:]]
        )
    if kind == "figure":
        return f"![{item[1]}](figures/{item[0]})"
    marks = {"p": "", "li": "- ", "code": "```\n"} | {f"h{n}": "#" * n + " " for n in range(1, 5)}
    return marks[kind] + item + ("\n```" if kind == "code" else "")


def html(blocks: list[Block], questions: list[dict[str, Any]]) -> str:
    """The page as one file; no `<` is left in the embedded JSON, so nothing in it can end the script element."""
    data = json.dumps({"blocks": blocks, "questions": questions}).replace("<", "\\u003c")
    return (TEMPLATES / "page.html").read_text(encoding="utf-8").replace("{{data}}", data)

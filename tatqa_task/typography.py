"""Typographic characters that mean a plain one: minus signs, full-width, special spaces."""

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # U+FF01 to U+FF5E are ASCII
_SPACES = dict.fromkeys([0xA0, 0x202F, 0x3000, *range(0x2000, 0x200B)], " ")
_HYPHENS = dict.fromkeys(map(ord, "‐‑‒–—―−﹣﹘⁻˗➖"), "-")
_TIMES = dict.fromkeys(map(ord, "×✕✖⨯∗·⋅•∙"), "*")
_DIVIDED = dict.fromkeys(map(ord, "÷∕⁄➗"), "/")
_ABOUT = dict.fromkeys(map(ord, "∼≃≅≈≒"), "~")
_SIGNS = {
    ord("➕"): "+",
    ord("﹪"): "%",
    ord("٪"): "%",
    ord("٬"): ",",
    ord("٫"): ".",
    ord("․"): ".",
}
_UNSEEN = dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF])
_PLAIN = _FULL_WIDTH | _SPACES | _HYPHENS | _TIMES | _DIVIDED | _ABOUT | _SIGNS | _UNSEEN


def plain(text: str) -> str:
    """The text with ASCII in place of characters that look like it, without those of no width.

    Superscripts and the like stay: `10²` is not 102, as Unicode's NFKC would have it.
    """
    return text.translate(_PLAIN)

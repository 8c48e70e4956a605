"""Scale wordings and numbers, as the official metric is to read them."""

import pytest

from tatqa_task.amounts import amount, hundredfold, number_in, scale_of, settled

WORDINGS = [
    ("", ""), ("thousand", "thousand"), ("in thousands", "thousand"), ("US$ millions", "million"),
    ("BILLION", "billion"),
    ("percentage points", "percent"), ("per cent", "percent"), ("％", "percent"),
    ("thousand million", "thousand"),
    ("dollars", None), ("none", None), ("hundred", None), ("m", None), ("mil", None),
]  # fmt: skip


@pytest.mark.parametrize(("wording", "scale"), WORDINGS)
def test_scale_of(wording: str, scale: str | None) -> None:
    assert scale_of(wording) == scale


AMOUNTS = [
    ("1,496.5", ("1,496.5", "")),
    ("$1,496.5 million", ("$1,496.5", "million")),
    ("$(9.8) million", ("$(9.8)", "million")),
    ("1,496.5 (in thousands)", ("1,496.5", "thousand")),
    ("12.6%", ("12.6", "percent")),
    ("12.6 percentage points", ("12.6", "percent")),
    ("1,496.5 million US dollars", ("1,496.5", "million")),
    ("US$5 billion", ("$5", "billion")),
    ("- 5", ("-5", "")),
    ("−5.", ("-5", "")),
    ("5 years", None),
    ("Note 7", None),
    ("million", None),
    ("5 million to 6 million", None),
    ("1" * 101, None),
]


@pytest.mark.parametrize(("text", "read"), AMOUNTS)
def test_amount(text: str, read: tuple[str, str] | None) -> None:
    assert amount(text) == read


@pytest.mark.parametrize(
    ("item", "scale", "expected"),
    [
        ("$5 million", "million", "$5"),
        ("$5 million", "thousand", "$5 million"),
        ("$5 million", "", "$5 million"),
        ("5%", "percent", "5%"),
        ("5 percent", "percent", "5"),
        ("~5", "", "5"),
        ("–5", "", "-5"),
        ("USD 5", "", "5"),
        ("US$5", "", "US$5"),
        (" US$5 ", "", " US$5 "),
        ("US$5", "million", "$5"),
        ("about 5", "", "about 5"),
        ("(16,458.0)", "", "(16,458.0)"),
        ("Europe", "million", "Europe"),
    ],
)
def test_settled(item: str, scale: str, expected: str) -> None:
    assert settled(item, scale) == expected  # type: ignore[arg-type]


def test_hundredfold() -> None:
    assert [hundredfold(item) for item in ("3", "1.5", "5%", "few")] == [
        "300.0000",
        "150.0000",
        "5%",
        "few",
    ]


def test_number_in() -> None:
    assert number_in(r"12.6\%") == "12.6%"
    assert number_in("１２．６") == "12.6"
    assert number_in("twelve") is None

"""Ratings and verdicts, read strictly and as FastChat does: worked out from the rules by hand."""

from typing import Any, cast

import pytest

from mtbench_runner.ratings import out_of_range, pair_outcome, strict_rating, strict_summary
from mtbench_runner.rows import Place


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("model_1", "model_1", 1),
        ("model_2", "model_2", 0),
        ("tie", "tie", 0.5),
        ("model_1", "model_2", 0.5),  # neither holds in both orders
        ("tie", "model_1", 0.5),
        ("model_2", "tie", 0.5),
        ("error", "model_1", None),
        ("tie", "error", None),
    ],
)
def test_a_verdict_counts_if_it_holds_in_both_orders(
    first: str, second: str, found: float | None
) -> None:
    assert pair_outcome(cast(Any, {"g1_winner": first, "g2_winner": second})) == found


def test_ratings_are_from_1_to_10() -> None:
    found = [out_of_range(rating) for rating in (0.9, 1, 10, 10.1, -1, None)]
    assert found == [True, False, False, True, True, False]


@pytest.mark.parametrize(
    ("judgment", "rating", "flags"),
    [
        ("Rating: [[7]]", 7, []),
        ("[[6.5]] it is. Rating: [[6.5]]", 6.5, []),
        ("Rating: [[7.]]", 7, []),
        ("Rating: [[7.25 / 10]]", 7.25, []),
        ("Rating: [[10/10]]", 10, []),
        ("Rating: [[08]]", 8, []),
        ("Rating: [[7/9]]", None, []),  # of ten, or it is none
        ("Rating: [[ 7]]", None, []),
        ("No rating.", None, []),
        # which of several
        ("The answer [[1]] is wrong. Rating: [[4]]", 4, ["disagree"]),
        ("[[4]], no, [[9]], no: [[4]]", 4, []),  # first and last
        ("Rating: [[15]]", None, ["range"]),
        ("Rating: [[0]]", None, ["range"]),
        ("[[15]] is too much: [[7]]", 7, ["range", "disagree"]),
        ("[[7]] and not [[15]]", 7, ["range", "disagree"]),
        # code
        ("`[[1]]` is right. Rating: [[9]]", 9, ["quoted"]),
        ("```\nm = [[1]]\n```\nRating: [[9]]", 9, ["quoted"]),
        ("`[[15]]` and `[[3]]`. Rating: [[9]]", 9, ["quoted"]),
        ("```a``` [[5]] ```b```", 5, []),  # between two blocks
        ("a ` sign\n[[5]] and another `", 5, []),  # ticks of two lines belong not together
        ("`x` [[5]] `y`", 5, []),
        # matrices
        ("[[1, 2], [3, 4]] is the product. Rating: [[8]]", 8, ["quoted"]),
        ("[[ -1.5 , 2]] is a row. Rating: [[8]]", 8, ["quoted"]),
        ("[[1.5, 2]] is a row. Rating: [[8]]", 8, ["quoted"]),
        ("[a] , [b] are rows. Rating: [[8]]", 8, ["quoted"]),
        ("[a],[b] are rows. Rating: [[8]]", 8, ["quoted"]),
        ("[[x, 2]] is none. Rating: [[8]]", 8, []),
        # single brackets
        ("x[0] should be x[1].", None, ["quoted"]),  # FastChat's fallback would take 0
        ("Rating: [7.5]", None, ["quoted"]),
        ("x[12] is right. Rating: [[8]]", 8, []),  # a rating is there
        ("[a] is no number.", None, []),
    ],
)
def test_strict_rating(judgment: str, rating: float | None, flags: list[str]) -> None:
    assert strict_rating(judgment) == (rating, flags)


@pytest.mark.parametrize("start", ["[[", "[", "[[1."])
def test_a_judgment_of_very_many_digits_is_read(start: str) -> None:
    digits = "9" * 200_000  # twice as many may not take four times as long
    assert strict_rating(start + digits) == (None, [])


def test_what_strict_reading_would_change() -> None:
    """FastChat read 4, nothing, 15 and 5; strictly they are 6, 8, none and 5."""
    judgments: dict[Place, tuple[str, float]] = {
        (1, 1): ("[[4]] or rather [[6]]", 4),
        (1, 2): ("[[8]] in the end", -1),
        (2, 1): ("[[15]]", 15),
        (2, 2): ("[[5]]", 5),
    }
    rows = {
        place: cast(Any, {"model": "m", "judgment": text, "score": score})
        for place, (text, score) in judgments.items()
    }
    found = strict_summary(rows, dict.fromkeys(rows, "stem"))
    assert found["overall"] == pytest.approx(19 / 3)  # 6, 8 and 5
    assert found["change"] == 1  # 2 and 0, of those that both read
    assert found["flagged"] == {"quoted": [], "range": [(2, 1)], "disagree": [(1, 1)]}
    assert strict_summary({}, {}) == {
        "overall": None,
        "change": None,
        "flagged": {"quoted": [], "range": [], "disagree": []},
    }

"""How metrics are shown and judged: ours by their names and ranges, others by their scores."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from results import InputError, measures
from results.record import Scores


def scores(values: Sequence[float | None], metric: str = "m", **known: Any) -> Scores:
    """Scores of as many questions on one metric."""
    names = [str(i) for i in range(len(values))]
    fields = {"bench": "b", "identity": {}, "cluster": names, "groups": {}} | known
    return Scores(circumstances={}, item=names, metrics={metric: list(values)}, **fields)


def test_margins_and_spans_in_the_units_shown() -> None:
    shown = {name: m.margin * m.factor for name, m in measures.MEASURES.items()}
    assert shown == pytest.approx(
        {
            "em": 3,
            "em_strict": 3,
            "f1": 3,
            "scale_em": 3,
            "parsed": 3,
            "lenient_em": 3,
            "calc_used": 3,
            "prompt_level_strict_acc": 3,
            "score": 0.5,
            "success": 10,
        }
    )
    assert measures.MEASURES["score"].span == 9  # from 1 to 10
    assert {m.span for name, m in measures.MEASURES.items() if name != "score"} == {1}


def test_spans_of_unknown_metrics_are_those_of_their_scores() -> None:
    far = measures.measure_of([scores([2.0, None]), scores([7.0, None])], "m", None)
    assert (far.span, far.factor, far.margin, far.label) == (5, 1, 0, "m")
    lost = measures.measure_of([scores([2.0, None]), scores([7.0, 5.0])], "m", None)
    assert lost.span == math.inf  # a log-likelihood of minus infinity, say
    share = measures.measure_of([scores([0.2, 0.4]), scores([0.3, 0.3])], "m", 2)
    assert (share.span, share.factor, share.margin, share.label) == (1, 100, 0.02, "m, %")
    bits = measures.measure_of([scores([0.2, 0.4], "bits_per_byte")], "bits_per_byte", None)
    assert (bits.factor, bits.label) == (1, "bits_per_byte")
    constant = measures.measure_of([scores([100.0] * 3)], "m", None)
    assert constant.span == math.inf  # how far it can change is not known


@pytest.mark.parametrize(("metric", "rated"), [("score", [1.0, 10.0]), ("success", [0.0, 1.0])])
def test_a_metric_is_a_judges_only_where_a_judge_gave_it(metric: str, rated: list[float]) -> None:
    judged = scores(rated, metric, identity={"judge": "j"})
    assert measures.measure_of([judged], metric, None) == measures.MEASURES[metric]
    toxicity = scores([0.7, 0.9], metric, higher_is_better={metric: False})
    other = measures.measure_of([toxicity], metric, None)
    assert (other.span, other.margin, other.higher_is_better) == (1, 0, False)


def test_tatqa_is_known_by_its_questions_and_not_by_the_name_of_a_task() -> None:
    other = scores([0.0, 1.0], "em", bench="tatqa_of_others")
    assert measures.measure_of([other], "em", None).margin == 0
    ours = scores([0.0, 1.0], "em", bench="tatqa", groups={"answer_type": ["span", "count"]})
    assert measures.measure_of([ours], "em", None) == measures.MEASURES["em"]


def test_a_direction_is_that_of_either_output_and_they_must_agree() -> None:
    unknown = scores([0.1])
    up, down = (scores([0.1], higher_is_better={"m": known}) for known in (True, False))
    assert measures.measure_of([unknown, up], "m", None).higher_is_better is True
    assert measures.measure_of([down, unknown], "m", None).higher_is_better is False
    assert measures.measure_of([unknown, unknown], "m", None).higher_is_better is None
    with pytest.raises(InputError, match="higher m is better in one output and worse in another"):
        measures.measure_of([up, down], "m", None)


def test_scores_beyond_the_range_make_it_another_metric() -> None:
    for values in ([0.9, 5.0], [5.0, 10.1]):
        judged = scores(values, "score", identity={"judge": "j"})
        measure = measures.measure_of([judged], "score", None)
        assert (measure.label, measure.factor, measure.margin) == ("score", 1, 0)
        assert measure.span == pytest.approx(values[1] - values[0])


def test_what_may_have_rare_losses() -> None:
    assert [name for name, measure in measures.MEASURES.items() if measure.rare] == ["score"]

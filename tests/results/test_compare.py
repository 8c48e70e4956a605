"""Comparing outputs: what is read, what is refused, what is warned of, what is printed."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from results import InputError, compare, measures, outputs, statistics, terminal
from results.__main__ import main
from results.record import Scores

Output = Callable[..., Path]


def test_scores_of_lm_eval_are_read_as_logged(lm_eval_output: Output) -> None:
    scores = outputs.lm_eval_scores(lm_eval_output("a", 0.5))
    rows = [
        json.loads(line)
        for file in lm_eval_output("b", 0.5).rglob("*.jsonl")
        for line in file.open()
    ]
    em = {row["doc"]["uid"]: row["em"] for row in rows}
    assert dict(zip(scores.item, scores.metrics["em"], strict=True)) == em
    assert len(set(scores.cluster)) == 16
    assert scores.circumstances["device"] == "A Processor"


def test_one_gpu_stands_on_the_line_that_announces_it(lm_eval_output: Output) -> None:
    file = outputs.results_file(lm_eval_output("a", 0.5))
    file.write_text(
        file.read_text().replace("CPU:", "GPU models and configuration: GPU 0: A GPU\\nCPU:")
    )
    assert outputs.lm_eval_scores(file).circumstances["device"] == "A GPU"
    file.write_text(file.read_text().replace(" GPU 0", "\\nGPU 0"))
    assert outputs.lm_eval_scores(file).circumstances["device"] == "A GPU"


def test_a_task_in_two_results_files_is_refused_and_both_are_named(lm_eval_output: Output) -> None:
    folder = lm_eval_output("a", 0.0) / "some__model"
    for file in lm_eval_output("b", 1.0).rglob("*_2026-*"):
        (folder / file.name.replace("2026-01-01", "2026-01-02")).write_text(file.read_text())
    with pytest.raises(InputError) as caught:
        compare.load(folder.parent)
    assert "results_2026-01-01T00-00-00.000000.json and in some__model/results_2026-01-02T" in str(
        caught.value
    )
    newest = next(folder.glob("results_2026-01-02*"))
    assert set(compare.load(newest)[0]["tatqa"].metrics["em"]) == {1.0}
    assert set(outputs.lm_eval_scores(folder.parent).metrics["em"]) == {1.0}  # a stage's own folder


def test_comparison_holds_the_hand_computed_figures(lm_eval_output: Output) -> None:
    before, after = (
        outputs.lm_eval_scores(lm_eval_output(n, s, seed))
        for n, s, seed in [("a", 0.3, 0), ("b", 0.8, 1)]
    )
    rows = {
        (row.metric, row.group): row
        for row in compare.compare({"tatqa": before}, {"tatqa": after})[0]["tatqa"]
    }
    a, b = before.metrics["em"], after.metrics["em"]
    row = rows["em", "overall"]
    assert row.difference.delta == pytest.approx(sum(map(float, b)) / 80 - sum(map(float, a)) / 80)  # type: ignore[arg-type]
    assert row.verdict == "better"
    count = [i for i, kind in enumerate(before.groups["answer_type"]) if kind == "count"]
    assert rows["em", "count"].difference.before == pytest.approx(
        sum(a[i] or 0 for i in count) / 20
    )
    kinds = ("arithmetic", "count", "multi-span", "span")
    family = [rows["em", kind].difference for kind in kinds]
    assert all(d.p >= d.p_alone and d.family == 4 for d in family)
    assert min(d.p for d in family) == pytest.approx(min(1, 4 * min(d.p_alone for d in family)))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text.replace('"until": []', '"until": ["x"]'), "generation settings"),
        (lambda text: text.replace('"tatqa_span": 1.0', '"tatqa_span": 2.0'), "task version"),
        (
            lambda text: text.replace('"gen_kwargs": null', '"gen_kwargs": {"temperature": 1}'),
            "overridden generation settings",
        ),
    ],
)
def test_other_settings_are_refused_by_name(
    lm_eval_output: Output,
    change: Callable[[str], str],
    named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, after = lm_eval_output("a", 0.5), lm_eval_output("b", 0.5)
    file = outputs.results_file(after)
    assert change(file.read_text()) != file.read_text()
    file.write_text(change(file.read_text()))
    assert main(["compare", str(before), str(after)]) == 2
    error = capsys.readouterr().err
    reason = f"not comparable, {named} differ before and after"
    assert error == f"error: tatqa: {reason}; score both the same way\n"


def test_another_chat_template_that_makes_the_same_prompts_is_a_warning(
    lm_eval_output: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = lm_eval_output("a", 0.5), lm_eval_output("b", 0.5)
    file = outputs.results_file(after)
    file.write_text(file.read_text().replace("c0ffee", "decaf"))
    assert main(["compare", str(before), str(after)]) == 0
    errors = capsys.readouterr().err
    assert errors == "warning: tatqa: the chat templates differ, the prompts do not\n"
    samples = next(after.rglob("samples_tatqa_count*"))
    samples.write_text(samples.read_text().replace('"prompt_hash": "', '"prompt_hash": "x'))
    assert main(["compare", str(before), str(after)]) == 2
    assert "not comparable, prompts, chat template differ" in capsys.readouterr().err


def test_another_number_of_questions_is_said_where_it_is_refused(lm_eval_output: Output) -> None:
    before, after = lm_eval_output("a", 0.5), lm_eval_output("b", 0.5)
    file = next(after.rglob("samples_tatqa_count*"))
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-3]))
    with pytest.raises(InputError, match=r"\(80 questions before, 77 after\); score both"):
        compare.compare(compare.load(before)[0], compare.load(after)[0])


@pytest.mark.parametrize(
    ("field", "named"),
    [("doc_hash", "docs"), ("prompt_hash", "prompts"), ("target_hash", "targets")],
)
def test_other_questions_or_prompts_are_refused(
    lm_eval_output: Output, field: str, named: str
) -> None:
    before, after = lm_eval_output("a", 0.5), lm_eval_output("b", 0.5)
    file = next(after.rglob("samples_tatqa_count*"))
    file.write_text(file.read_text().replace(f'"{field}": "', f'"{field}": "x', 1))
    with pytest.raises(InputError, match=named):
        compare.compare(compare.load(before)[0], compare.load(after)[0])


def test_another_version_or_base_is_warned_of(
    lm_eval_output: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = (
        lm_eval_output("a", 0.5),
        lm_eval_output("b", 0.5, model_args="pretrained=other,peft=x", batch_size="1"),
    )
    assert main(["compare", str(before), str(after)]) == 0
    errors = capsys.readouterr().err
    assert "warning: tatqa: base differs: base before, other after" in errors
    assert "warning: tatqa: batch size differs: 16 before, 1 after" in errors


def test_any_other_task_compares_question_by_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, right in (("before", 0), ("after", 9)):
        (tmp_path / name).mkdir()
        rows = [
            {
                "doc_id": i,
                "doc": {"key": 1000 + i, "prompt": "Write in capitals."},
                "metrics": ["prompt_level_strict_acc", "inst_level_strict_acc"],
                "prompt_level_strict_acc": i < right,
                "inst_level_strict_acc": [i < right, True],
                **dict.fromkeys(("doc_hash", "prompt_hash", "target_hash"), str(i)),
            }
            for i in range(10)
        ]
        (tmp_path / name / "samples_ifeval_t.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
        results = {
            "config": {},
            "configs": {"ifeval": {}},
            "versions": {"ifeval": 4.0},
            "n-shot": {},
        }
        (tmp_path / name / "results_t.json").write_text(json.dumps(results))
    assert main(["compare", str(tmp_path / "before"), str(tmp_path / "after"), "--json"]) == 0
    row, other = json.loads(capsys.readouterr().out)
    assert (other["metric"], other["before"], other["after"]) == (
        "inst_level_strict_acc",
        0.5,
        0.95,
    )
    assert (row["bench"], row["metric"], row["clusters"]) == (
        "bench ifeval",
        "prompt_level_strict_acc",
        10,
    )
    assert (row["delta"], row["verdict"]) == (0.9, "better")
    assert row["p"] == pytest.approx(2 / 2**9)  # nine of ten changed, all one way


def test_a_judged_folder_stands_for_its_scores(mtbench_output: Output) -> None:
    folder = mtbench_output("a", [3] * 8)
    assert compare.load(folder)[0] == compare.load(folder / "score.json")[0]


def test_mtbench_scores_pair_by_turn_and_cluster_by_question(
    mtbench_output: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = (
        mtbench_output("a", [3] * 8) / "score.json",
        mtbench_output("b", [3, 3, 3, 3, 3, 3, 3, 9]) / "score.json",
    )
    assert main(["compare", str(before), str(after), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    overall = next(row for row in rows if (row["metric"], row["group"]) == ("score", "overall"))
    assert (overall["n"], overall["clusters"], overall["delta"]) == (16, 8, 0.75)
    assert overall["p"] == 1.0  # one question of eight changed: its sign can only be + or -
    assert "STAND-IN JUDGE" in overall["bench"]
    success = next(row for row in rows if (row["metric"], row["group"]) == ("success", "overall"))
    assert success["after"] == 0.125


def test_json_has_null_where_there_is_no_figure(
    mtbench_output: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {"per_question": {"0": {"1": 3.0, "2": 4.0}}}
    before, after = (mtbench_output(name, [3] * 8, **one) / "score.json" for name in ("a", "b"))
    assert main(["compare", str(before), str(after), "--json"]) == 0
    row = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)[0]
    assert (row["low"], row["se"], row["verdict"]) == (None, None, "cannot tell")


def test_a_missing_judgment_is_left_out_and_said(
    mtbench_output: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    before = mtbench_output("a", [3] * 8) / "score.json"
    content = json.loads(before.read_text())
    del content["per_question"]["0"]["2"]
    after = (
        mtbench_output("b", [3] * 8, per_question=content["per_question"], missing=1) / "score.json"
    )
    assert main(["compare", str(before), str(after)]) == 0
    captured = capsys.readouterr()
    assert "1 items lack score on one side or both and are left out" in captured.err
    assert "missing differs: 0 before, 1 after" in captured.err
    assert "  15  " in captured.out


def test_another_judge_is_refused(mtbench_output: Output) -> None:
    before, after = mtbench_output("a", [3] * 8), mtbench_output("b", [3] * 8, judge="gpt-4")
    with pytest.raises(InputError, match="judge"):
        compare.compare(
            compare.load(before / "score.json")[0], compare.load(after / "score.json")[0]
        )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("7", "neither a record nor"),
        ('{"per_question": {}, "judge": "j"}', "not MT-Bench scores, no bench"),
    ],
)
def test_another_json_file_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "score.json").write_text(content)
    with pytest.raises(InputError, match=f"score.json: {reason}"):
        compare.load(tmp_path / "score.json")


def test_records_compare_bench_by_bench(
    results_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            [
                "compare",
                str(results_folder / "runs/base-tiny"),
                str(results_folder / "runs/low/record.json"),
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "TAT-QA: exact match, %" in out
    assert "bench demo (STAND-IN JUDGE, measures nothing): rating from 1 to 10" in out


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "no such file or folder"),
        ("{", "cannot be read as JSON"),
        ("{}", "not an lm-eval results file"),
        ('{"scores": {}}', "not a valid record"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, content: str | None, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results_x.json"
    if content is not None:
        file.write_text(content)
    assert main(["compare", str(file), str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert named in error


def test_a_folder_without_results_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 2
    assert "--log_samples" in capsys.readouterr().err


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from results.__main__ import parser; parser(); "
        "print({'scipy', 'pydantic'} & {*sys.modules})"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        == "set()\n"
    )


def row(low: float, high: float, measure: measures.Measure) -> compare.Row:
    """A row with this interval."""
    part = statistics.Part((high - low) / 2 / statistics.t_quantile(1e9, 0.05), 1e9)
    middle = (low + high) / 2
    made = statistics.Difference(
        n=9, clusters=9, before=0, after=middle, delta=middle, questions=part, skewness=0, flips=0
    )
    return compare.Row("bench", "em", measure, "overall", "overall", made)


def test_a_line_in_words_and_figures() -> None:
    em, rating = measures.MEASURES["em"], measures.MEASURES["score"]
    assert row(-0.0251, 0.01, em).words == "no difference within 2.5"
    assert row(-0.01, 0.0251, em).words == "no difference within 2.5"
    assert row(0.001, 0.0251, em).words == "better, smaller than 2.5"
    assert row(-0.0251, -0.001, em).words == "worse, smaller than 2.5"
    assert row(-0.031, 0.001, em).words == "cannot tell"
    assert row(0.01, 0.05, em).words == "better"
    assert row(0.01, 0.05, em).change == "+3.0 (+1.0 to +5.0)"
    assert row(0.01, 0.05, rating).change == "+0.03 (+0.01 to +0.05)"
    lower = replace(em, higher_is_better=False)
    assert row(0.01, 0.05, lower).verdict == "worse"
    assert row(-0.05, -0.01, lower).verdict == "better"
    unknown = replace(em, higher_is_better=None)
    assert row(0.01, 0.05, unknown).verdict == "higher"
    assert row(-0.05, -0.01, unknown).verdict == "lower"
    assert [compare.p_value(p) for p in (0.0009, 0.001, 0.0099)] == ["< 0.001", "0.001", "0.010"]


def test_a_line_that_has_no_figures() -> None:
    em = measures.MEASURES["em"]
    nothing = row(0.01, 0.05, em)
    one = replace(nothing, difference=replace(nothing.difference, clusters=1))
    assert (one.verdict, one.interval, one.change) == ("cannot tell", "n/a", "+3.0 (n/a)")
    assert one.show(math.inf) == one.show(math.nan) == "n/a"
    assert one.cells == [
        "overall",
        "cannot tell",
        "+3.0",
        "n/a",
        "0.0",
        "3.0",
        "9",
        "1",
        "1.000",
    ] + ["n/a"]


def test_the_head_of_a_table_and_the_names_for_machines() -> None:
    assert terminal.table_lines([]) == [
        "  verdict  delta  95 % interval  before  after  n  clusters  p (adjusted)  detectable"
    ]
    (found,) = terminal.as_json([row(0.01, 0.05, measures.MEASURES["em"])])
    words = "bench metric column group verdict margin higher_is_better p_unadjusted"
    figures = "n clusters before after delta se df low high p p_alone detectable family runs"
    of_runs = "se_runs df_runs unpaired"
    assert sorted(found) == sorted(f"{words} {figures} {of_runs}".split())
    assert (found["n"], found["after"], found["se_runs"]) == (9, pytest.approx(0.03), 0)


def test_only_what_all_sides_have_is_compared() -> None:
    sides = [{"c": 1, "b": 1, "a": 1}, {"b": 1, "c": 1}, {"a": 1, "b": 1}]
    assert compare.in_all(sides) == ["b"]
    unscored = {"b": scores([None, 1.0])}
    with pytest.raises(InputError, match="no metric has a score of the same question"):
        compare.compare(unscored, {"b": scores([1.0, None])})


def test_the_table_of_a_group_stands_for_its_parts() -> None:
    tables = {
        "group": scores([1.0, 0.0, 1.0], groups={"task": ["a", "a", "b"]}),
        "a": scores([1.0, 0.0]),  # held wholly
        "b": scores([1.0, 0.0, 1.0]),  # of as many questions as the group
        "c": scores([1.0]),  # no task of the group
    }
    assert compare.apart(tables, list(tables)) == ["group", "b", "c"]
    tables["a"].metrics["other"] = [1.0, 1.0]  # which the group has not
    assert compare.apart(tables, list(tables)) == ["group", "a", "b", "c"]


def test_names_of_a_served_base_are_no_difference_and_others_are() -> None:
    known = {"base model": "one"}
    before, after = scores([1.0], identity=known), scores([1.0], identity=known)
    before.circumstances.update({"base": "b", "device": "CPU"})
    after.circumstances.update({"base": "b-adapter", "device": "GPU"})
    assert compare.check(before, after) == ["b: device differs: CPU before, GPU after"]
    before.identity.clear()
    warnings = compare.check(before, after)
    assert warnings[0] == "b: base model is known on one side only"
    assert warnings[1] == "b: base differs: b before, b-adapter after"
    assert len(warnings) == 3


def test_the_headline_comes_first() -> None:
    for headline in ("em", "score", "prompt_level_strict_acc"):
        one = scores([1.0], "acc")
        one.metrics[headline] = [1.0]
        assert compare.shared_metrics([one, one]) == [headline, "acc"]


def test_a_limit_that_is_the_margin_itself_is_within_it() -> None:
    better = row(0.01, 0.05, measures.MEASURES["em"])
    within = replace(better.measure, margin=better.difference.high)
    assert replace(better, measure=within).words == "better, smaller than 5.0"
    beyond = replace(better.measure, margin=better.difference.high * 0.999)
    assert replace(better, measure=beyond).words == "better"


def test_what_is_read_together_is_one_family(
    lm_eval_output: Output, mtbench_output: Output
) -> None:
    sides = []
    for name, skill, rating in (("a", 0.4, 3), ("b", 0.7, 4)):
        table = compare.load(lm_eval_output(name, skill))[0]
        judged = mtbench_output(f"m{name}", [rating] * 7 + [9])
        sides.append(table | compare.load(judged / "score.json")[0])
    found, _ = compare.compare(sides[0], sides[1])
    families = {
        (bench, r.metric, r.column): r.difference.family
        for bench, rows in found.items()
        for r in rows
    }
    assert families["tatqa", "em", "overall"] == families["mtbench", "score", "overall"] == 2
    assert families["tatqa", "f1", "overall"] == 4  # f1, scale_em, parsed, lenient_em
    assert families["mtbench", "success", "overall"] == 1
    assert families["tatqa", "em", "answer_type"] == 4
    assert families["tatqa", "f1", "answer_from"] == 1
    assert families["mtbench", "score", "category"] == 4


def scores(values: Sequence[float | None], metric: str = "m", **known: Any) -> Scores:
    """Scores of as many questions on one metric."""
    names = [str(i) for i in range(len(values))]
    fields = {"bench": "b", "identity": {}, "cluster": names, "groups": {}} | known
    return Scores(circumstances={}, item=names, metrics={metric: list(values)}, **fields)


@pytest.mark.parametrize(
    ("metric", "values"), [("score", [0.9, 5.0]), ("score", [5.0, 10.1]), ("success", [0.0, 100.0])]
)
def test_scores_in_other_units_are_no_metric_of_ours(metric: str, values: list[float]) -> None:
    judged = scores(values, metric, identity={"judge": "j"})
    measure = measures.measure_of([judged], metric, None)
    assert (measure.label, measure.factor, measure.margin) == (metric, 1, 0)
    assert measure.span == pytest.approx(values[1] - values[0])
    _, warnings = compare.compare({"b": judged}, {"b": judged})
    expected = {"score": "1 to 10", "success": "0 to 1"}[metric]
    assert f"b: {metric} has scores outside {expected}; it is shown as it stands" in warnings


def test_cluster_does_nothing_for_records_and_says_so(results_folder: Path) -> None:
    folder = results_folder / "runs/low"
    _, warnings = compare.load(folder, "passage")
    assert warnings == [f"{folder / 'record.json'}: {compare.NO_DOCUMENTS}"]
    assert compare.load(folder)[1] == []


def test_ratings_allow_for_losses_that_were_not_seen() -> None:
    sides = [scores([float(3 + i % k) for i in range(20)], "score", identity={"judge": "j"})
             for k in (2, 3)]  # fmt: skip
    d = compare.compare({"b": sides[0]}, {"b": sides[1]})[0]["b"][0].difference
    assert d.beyond == (8, 7)  # one lost a point, one gained two; nine is the most
    plain = [scores(side.metrics["score"]) for side in sides]
    assert compare.compare({"b": plain[0]}, {"b": plain[1]})[0]["b"][0].difference.beyond == (0, 0)


def test_scores_that_one_side_lacks_may_have_been_anything() -> None:
    before = scores([0.0, 1.0] * 40)
    after = scores([0.0, 1.0] * 30 + [None] * 20)
    found, warnings = compare.compare({"b": before}, {"b": after}, margin=3)
    d = found["b"][0].difference
    assert (d.n, d.unpaired) == (60, 0.25)
    assert d.low < -0.25 < 0.25 < d.high
    assert found["b"][0].verdict == "cannot tell"
    assert warnings[0].startswith("b: 20 items lack m on one side or both and are left out")
    both = scores([0.0, 1.0] * 30 + [None] * 20)
    assert compare.compare({"b": both}, {"b": after})[0]["b"][0].difference.unpaired == 0


@pytest.mark.parametrize("margin", [-1.0, math.nan, math.inf])
def test_a_margin_is_a_size(margin: float) -> None:
    table = {"b": scores([0.0, 1.0])}
    with pytest.raises(InputError, match="is no size"):
        compare.compare(table, table, margin)


def test_a_copy_of_a_run_is_no_second_seed() -> None:
    before, one, other = (scores([float(i % k == 0) for i in range(20)]) for k in (2, 3, 5))
    rows, warnings = compare.compare({"b": before}, [{"b": one}, {"b": other}, {"b": one}])
    assert rows["b"][0].difference.runs == 2
    assert warnings == ["1 of the runs after are copies of others and are left out"]
    assert compare.compare({"b": before}, [{"b": one}] * 2)[0]["b"][0].difference.runs == 1


def test_a_table_says_what_its_intervals_hold_for() -> None:
    before, one, other = (scores([float(i % k == 0) for i in range(20)]) for k in (2, 3, 5))
    rows, _ = compare.compare({"b": before}, [{"b": one}, {"b": other}])
    assert terminal.notes(rows["b"]) == [
        # shares .35 and .2 after: half their distance is 7.5 points. Questions: 13.3, less what
        # they and runs do together: 5 differ upward, 2 down; (7 / 4 - 20 * .075^2) / 19 / 20
        "mean of 2 runs: standard error 11.6 from questions (19 degrees of freedom), 7.5 from "
        "runs (1)"
    ]
    two = {"b": before, "c": before}
    rows, _ = compare.compare(two, {"b": one, "c": other})
    assert terminal.notes(rows["b"]) == [
        "comparisons whose intervals hold together with 95 %: overall 2"
    ]
    assert "hold together with 95 %: overall 2" in terminal.text(rows["b"])
    assert terminal.notes(compare.compare({"b": before}, {"b": one})[0]["b"]) == []


def test_clusters_of_very_unequal_size_are_warned_of() -> None:
    giant: dict[str, Any] = {"cluster": ["a"] * 10 + [str(i) for i in range(10)]}
    sides = [scores([float(i % 3 == side) for i in range(20)], **giant) for side in (0, 1)]
    _, warnings = compare.compare({"b": sides[0]}, {"b": sides[1]})
    # 20**2 / (10**2 + 10) = 3.6
    assert [w for w in warnings if "11 clusters of very unequal size say no more than 3.6" in w]
    even = [scores(side.metrics["m"]) for side in sides]
    assert compare.compare({"b": even[0]}, {"b": even[1]})[1] == []


def test_worse_is_about_the_first_metric_overall() -> None:
    em = measures.MEASURES["em"]
    overall, down = row(-0.01, 0.01, em), row(-0.2, -0.1, em)
    assert not compare.is_worse([overall, replace(down, column="answer_type")])
    assert not compare.is_worse([overall, replace(down, metric="f1")])
    assert compare.is_worse([down])
    unknown = replace(down, measure=replace(em, higher_is_better=None))
    with pytest.raises(InputError, match="no output says whether higher em is better"):
        compare.is_worse([unknown])


def test_names_that_would_control_a_terminal_are_shown_as_they_cannot(
    lm_eval_output: Output, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = []
    for name, skill in (("a", 0.2), ("b", 0.8)):
        folder = lm_eval_output(name, skill)
        for file in folder.rglob("samples_*"):
            file.write_text(file.read_text().replace('"table"', '"\\ud800\\u202e\\n\\u001b[31m"'))
        sides.append(str(folder))
    assert main(["compare", *sides, "--flips"]) == 0
    out = capsys.readouterr().out
    assert "\N{REPLACEMENT CHARACTER}" in out
    assert not {"\ud800", "\u202e", "\x1b"} & {*out}
    (tmp_path / "new\nline").write_text("{")
    assert main(["compare", str(tmp_path / "new\nline"), sides[0]]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_served_names_of_one_base_are_no_other_base() -> None:
    known: dict[str, Any] = {"bench": "b", "cluster": ["0"], "groups": {}, "item": ["0"]}
    sides = [
        Scores(identity={"base model": ["hash", False]}, circumstances={"base": name},
               metrics={"m": [1.0]}, **known)
        for name in ("base", "adapter-12")
    ]  # fmt: skip
    assert compare.check(*sides) == []
    for side in sides:
        side.identity.clear()
    assert compare.check(*sides) == ["b: base differs: base before, adapter-12 after"]


def test_flips_of_what_is_there(results_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = [str(results_folder / "runs" / name) for name in ("base-tiny", "low")]
    assert main(["compare", *sides, "--flips"]) == 0
    out = capsys.readouterr().out
    assert "have higher em after" in out
    assert "mtbench: no replies to show, " in out


def test_flips_of_a_form_that_lies_in_the_folder_of_its_stage(
    results_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stage is called tatqa whatever form it asks: tatqa_calc was looked for, and not there."""
    sides = [results_folder / "runs" / name for name in ("base-tiny", "low")]
    for side in sides:
        content = json.loads((side / "record.json").read_text())
        content["scores"]["tatqa"]["bench"] = "tatqa_calc"
        (side / "record.json").write_text(json.dumps(content))
        for file in [*(side / "tatqa").rglob("*.json*")]:
            text = file.read_text().replace('"tatqa_', '"tatqa_calc_')
            file.with_name(file.name.replace("tatqa_", "tatqa_calc_")).write_text(text)
            if "tatqa_" in file.name:
                file.unlink()
    assert main(["compare", *map(str, sides), "--flips"]) == 0
    assert "tatqa_calc: " in capsys.readouterr().out


def test_percent_against_a_share_is_asked_about() -> None:
    share, percent = scores([0.0, 1.0]), scores([0.0, 100.0])
    (line,) = compare.compare({"b": share}, {"b": percent})[1]
    assert line == "bench b: m is 0.5 before and 50 after; is one of them in other units?"
    (line,) = compare.compare({"b": percent}, {"b": share})[1]
    assert line == "bench b: m is 50 before and 0.5 after; is one of them in other units?"
    few, many = scores([1.0] + [0.0] * 99), scores([1.0] * 90 + [0.0] * 10)
    assert compare.compare({"b": few}, {"b": many})[1] == []  # both are shares
    assert compare.compare({"b": share}, {"b": scores([0.0, 49.0])})[1] == []


@pytest.mark.parametrize(
    ("before", "after", "asked"),
    [
        (1.0, 50.0, True),  # fifty times as much as a share can be at most
        (1.0, 49.9, False),
        (1.01, 60.0, False),  # no share
        (0.02, 1.0, False),  # two shares
        (0.02, 1.01, True),
        (-60.0, 0.5, True),  # logarithms
        (0.0, 60.0, False),  # of 0 everything is a multiple
    ],
)
def test_from_when_on_units_look_different(before: float, after: float, asked: bool) -> None:
    found = row(0.0, 0.0, measures.MEASURES["em"])
    found = replace(found, difference=replace(found.difference, before=before, after=after))
    assert bool(compare.other_units([found])) == asked
    assert compare.other_units([replace(found, column="answer_type")]) == []


@pytest.mark.parametrize(("df", "said"), [(9.0, False), (8.9, True)])
def test_less_than_half_of_the_clusters_are_of_very_unequal_size(df: float, said: bool) -> None:
    """20 clusters that say as much as 10, and as 9.9."""
    found = row(0.0, 0.1, measures.MEASURES["em"])
    questions = statistics.Part(0.1, df)
    found = replace(found, difference=replace(found.difference, clusters=20, questions=questions))
    assert bool(compare.uneven_clusters(found)) == said

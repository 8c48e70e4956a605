"""What lm-eval writes, by example: real outputs of stock tasks, and older layouts of them."""

import json
import math
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from results import InputError, compare, outputs, record
from results.__main__ import main
from results.outputs import figures, folders, groups, identity, scores
from results.outputs.tables import cluster_warnings

CORPUS = Path(__file__).parent / "lm_eval_outputs"
Output = Callable[..., Path]


def rows_of(side: str, task: str) -> list[dict[str, Any]]:
    (file,) = (CORPUS / side).rglob(f"samples_{task}_*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def compared() -> dict[tuple[str, str], compare.Row]:
    """The overall rows of the corpus by task and metric."""
    before, after = (compare.load(CORPUS / side)[0] for side in ("before", "after"))
    found, _ = compare.compare(before, after)
    return {(b, row.metric): row for b, rows in found.items() for row in rows}


def test_every_task_filter_and_metric_of_the_corpus_is_compared_or_named() -> None:
    tables, warnings = compare.load(CORPUS / "before")
    assert {name: list(table.metrics) for name, table in tables.items()} == {
        "crows_local": ["likelihood_diff", "pct_stereotype"],
        "drop_local": ["em", "f1"],
        "gsm8k_local": ["exact_match,strict-match", "exact_match,flexible-extract"],
        "lambada_local": ["perplexity", "acc"],
        "mrpc_local": ["acc"],
        "wikitext_local": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
    }
    assert "mrpc_local: f1 is not a mean over questions, left out" in warnings
    assert set(compared()) == {(n, m) for n, table in tables.items() for m in table.metrics}


def test_directions_come_from_the_results_file() -> None:
    tables, _ = compare.load(CORPUS / "before")
    assert tables["crows_local"].higher_is_better == {
        "likelihood_diff": False,
        "pct_stereotype": False,
    }
    assert tables["gsm8k_local"].higher_is_better == {
        "exact_match,strict-match": True,
        "exact_match,flexible-extract": True,
    }
    row = compared()["crows_local", "likelihood_diff"]
    assert row.measure.higher_is_better is False


def test_figures_are_lm_evals_own() -> None:
    (file,) = (CORPUS / "after").rglob("results_*.json")
    results = json.loads(file.read_text())["results"]
    found = compared()
    for (task, metric), row in found.items():
        name = metric if "," in metric else f"{metric},none"
        theirs = results[task][name]
        ours = row.difference.after
        assert theirs == pytest.approx(math.exp(ours) if "perplexity" in metric else ours)


def test_perplexities_by_hand() -> None:
    # log-likelihoods -10 and -20 of 4 and 6 words: 30 / 10 nats a word
    assert scores.score("word_perplexity", [-10.0, 4]) == (2.5, 4)
    assert scores.score("word_perplexity", [-20.0, 6]) == pytest.approx((20 / 6, 6))
    assert scores.score("bits_per_byte", [-10.0, 4]) == pytest.approx((2.5 / math.log(2), 4))
    assert scores.score("perplexity", -9.0) == (9, 1)
    assert scores.score("acc", -9.0) == (-9, 1)


def test_scores_that_are_none_or_no_number() -> None:
    assert scores.score("acc", None) == (None, 1)
    assert scores.score("acc", math.nan) == (None, 1)
    assert scores.score("acc", math.inf) == (None, 1)
    assert scores.score("acc", True) == (1, 1)
    assert scores.score("inst_level", [True, False, False]) == pytest.approx((1 / 3, 3))
    assert scores.score("bleu", ["a", "b"])[0] is NotImplemented
    assert scores.score("f1", [1, 0])[0] is NotImplemented
    assert scores.score("word_perplexity", [-1.0, 0]) == (None, 0)


@pytest.mark.parametrize("value", [1e101, -1e101, 10**400])
def test_a_score_beyond_all_statistics_is_none(value: float) -> None:
    assert scores.score("acc", value) == (None, 1)
    assert scores.score("perplexity", value) == (None, 1)
    assert scores.score("word_perplexity", [value, 4]) == (None, 1)
    assert scores.score("acc", 1e100) == (1e100, 1)


def test_choices_of_another_shape_are_shown_as_they_are() -> None:
    row = {**rows_of("before", "crows_local")[0], "task": "c"}
    odd: list[Any] = [["x", "y"], None, {}, []]
    for requests in [[[one], [one]] for one in odd]:
        (reply,) = outputs.replies([{**row, "resps": requests}])
        assert reply.text == str([request[0] for request in requests])


def test_directions_that_the_results_leave_out_are_unknown(corpus: Path) -> None:
    (file,) = (corpus / "before").rglob("results_*.json")
    results = json.loads(file.read_text())
    results["higher_is_better"] = {"gsm8k_local": None}
    file.write_text(json.dumps(results))
    tables, _ = compare.load(corpus / "before")
    assert tables["gsm8k_local"].higher_is_better == tables["crows_local"].higher_is_better == {}


@pytest.mark.parametrize("ratings", [[1], None, {"1": 3}, {"1": {"1": "good"}}])
def test_ratings_of_another_shape_are_one_line(mtbench_output: Output, ratings: Any) -> None:
    folder = mtbench_output("mtbench", [4] * 8, per_question=ratings)
    with pytest.raises(InputError, match="not MT-Bench scores"):
        outputs.mtbench_scores(folder / "score.json")


def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rnus: no such file or folder"):
        compare.load(tmp_path / "rnus")


def test_a_folder_in_an_output_that_may_not_be_read_is_named(
    lm_eval_output: Output,
    tmp_path: Path,
    as_nobody: Callable[[], AbstractContextManager[None]],
) -> None:
    """What is in it was left out without a word."""
    output = lm_eval_output("out", 0.5).relative_to(tmp_path)
    (output / "newer").mkdir(mode=0)
    with as_nobody(), pytest.raises(InputError, match="out/newer: cannot be read"):
        outputs.results_files(output)


def test_a_turn_without_a_rating_has_no_score(mtbench_output: Output) -> None:
    folder = mtbench_output("mtbench", [4] * 8, per_question={"1": {"1": None, "2": 8.0}})
    scores = outputs.mtbench_scores(folder / "score.json")
    assert scores.metrics == {"score": [None, 8.0], "success": [None, 1.0]}


def test_questions_that_share_a_passage_are_kept_together_if_asked() -> None:
    _, warnings = compare.load(CORPUS / "before")
    assert [line for line in warnings if "share a" in line] == [
        "drop_local: rows share a passage; --cluster passage keeps its questions together"
    ]
    assert not any("gsm8k" in line for line in warnings)
    docs = [{"passage": "one"}, {"passage": "two"}]
    assert cluster_warnings("squad", docs, None) == []
    tables, warnings = compare.load(CORPUS / "before", "passage")
    assert len(set(tables["drop_local"].cluster)) == 4
    assert len(set(tables["mrpc_local"].cluster)) == 9
    assert "mrpc_local: each question stands alone, its document has no passage" in warnings
    with pytest.raises(InputError, match="no document has chapter"):
        compare.load(CORPUS / "before", "chapter")


def change_rows(corpus: Path, task: str, change: Callable[[int, dict[str, Any]], None]) -> None:
    """Change the rows of a task on both sides of a corpus."""
    for side in ("before", "after"):
        (file,) = corpus.glob(f"{side}/model/samples_{task}_*")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for place, row in enumerate(rows):
            change(place, row)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_documents_without_the_key_stand_alone_among_others(corpus: Path) -> None:
    def key(place: int, row: dict[str, Any]) -> None:
        row["doc"] |= [{"key": "a"}, {"key": "a"}, {"key": None}, {}][place % 4]
        del row["doc_hash"]

    change_rows(corpus, "lambada_local", key)
    tables, warnings = compare.load(corpus / "before", "key")
    assert len(set(tables["lambada_local"].cluster)) == 5  # of eight, four are of "a"
    assert "lambada_local: 4 of 8 documents have no key, each stands alone" in warnings
    with pytest.raises(InputError, match="no document has , which"):
        compare.load(corpus / "before", "")


def test_hashes_that_were_logged_as_null_are_made(corpus: Path) -> None:
    def without(place: int, row: dict[str, Any]) -> None:
        row |= {"doc_hash": None, "prompt_hash": None, "target_hash": None}

    logged = compare.load(corpus / "before")[0]["lambada_local"]
    change_rows(corpus, "lambada_local", without)
    made = compare.load(corpus / "before")[0]["lambada_local"]
    assert len(set(made.cluster)) == 8
    assert made.identity == logged.identity


def test_half_of_a_surrogate_pair_is_text_like_other(corpus: Path) -> None:
    def odd(place: int, row: dict[str, Any]) -> None:
        row["doc"]["text"] = row["target"] = f"\ud800 {place}"
        for name in ("doc_hash", "prompt_hash", "target_hash"):
            del row[name]

    change_rows(corpus, "lambada_local", odd)
    assert len(set(compare.load(corpus / "after")[0]["lambada_local"].cluster)) == 8


def test_a_metric_of_some_questions_is_compared_on_these(corpus: Path) -> None:
    def some(place: int, row: dict[str, Any]) -> None:
        row["metrics"] = ["acc"] if place < 3 else ["perplexity"]
        del row["perplexity" if place < 3 else "acc"]

    change_rows(corpus, "lambada_local", some)
    before, after = (compare.load(corpus / side)[0] for side in ("before", "after"))
    rows = compare.compare(before, after)[0]["lambada_local"]
    assert {row.metric: row.difference.n for row in rows} == {"acc": 3, "perplexity": 5}
    assert {row.difference.unpaired for row in rows} == {0}


def test_samples_of_a_task_that_the_results_do_not_know_are_named(corpus: Path) -> None:
    (file,) = corpus.glob("after/model/samples_drop_local_*")
    file.rename(file.with_name(file.name.replace("drop_local", "other")))
    with pytest.raises(InputError, match="says nothing of other, whose samples lie beside it"):
        compare.load(corpus / "after")


def test_json_is_json_alone() -> None:
    folders = [str(CORPUS / "before"), str(CORPUS / "after")]
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *folders, "--json", "--flips"])
    assert stopped.value.code == 2


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CORPUS, tmp_path / "corpus"))


def older(folder: Path, stamped: bool) -> None:
    """An output as lm-eval up to 0.4.2 left it: no hashes, no directions, results.json."""
    (file,) = folder.rglob("results_*.json")
    stamp = file.stem.removeprefix("results_")
    results = json.loads(file.read_text())
    for new in ("higher_is_better", "chat_template_sha", "lm_eval_version", "group_subtasks"):
        results.pop(new)
    for samples in folder.rglob("samples_*"):
        rows = [json.loads(line) for line in samples.read_text().splitlines()]
        for row in rows:
            for new in ("doc_hash", "prompt_hash", "target_hash", "filter", "metrics"):
                del row[new]
        if not stamped:
            task = samples.stem.removeprefix("samples_").removesuffix(f"_{stamp}")
            samples.unlink()
            samples = samples.with_name(f"pretrained__x_{task}.jsonl")
        samples.write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
            if stamped
            else json.dumps(rows, indent=2)
        )
    file.unlink()
    file.with_name(file.name if stamped else "results.json").write_text(json.dumps(results))


@pytest.mark.parametrize("stamped", [True, False])
def test_older_layouts_without_hashes_compare_with_themselves_and_with_new_ones(
    corpus: Path, stamped: bool
) -> None:
    new = compared()
    older(corpus / "after", stamped)
    tables, _ = compare.load(corpus / "after")
    mixed, _ = compare.compare(compare.load(corpus / "before")[0], tables)
    rows = {(b, row.metric): row for b, found in mixed.items() for row in found}
    assert {key: row.difference for key, row in rows.items()} == {
        key: row.difference for key, row in new.items()
    }
    older(corpus / "before", stamped)
    both, _ = compare.compare(compare.load(corpus / "before")[0], tables)
    assert both["crows_local"][0].measure.higher_is_better is None


@pytest.mark.parametrize("version", ["0.4.3", "0.4.5", "0.4.8"])
def test_outputs_of_other_versions_are_compared_and_have_their_own_figures(version: str) -> None:
    folder = CORPUS / f"lm_eval-{version}"
    before, after = (compare.load(folder / side)[0] for side in ("before", "after"))
    assert list(before["gsm8k_local"].metrics) == [
        "exact_match,strict-match",
        "exact_match,flexible-extract",
    ]
    assert before["gsm8k_local"].higher_is_better == {
        "exact_match,strict-match": True,
        "exact_match,flexible-extract": True,
    }
    found, _ = compare.compare(before, after)
    (file,) = (folder / "after").rglob("results_*.json")
    results = json.loads(file.read_text())["results"]
    for task, rows in found.items():
        for row in rows:
            name = row.metric if "," in row.metric else f"{row.metric},none"
            ours = row.difference.after
            ours = math.exp(ours) if "perplexity" in name else ours
            assert ours == pytest.approx(results[task][name])


def test_one_model_scored_by_two_versions_is_compared() -> None:
    old, new = (compare.load(CORPUS / f"lm_eval-{v}" / "before")[0] for v in ("0.4.3", "0.4.8"))
    found, _ = compare.compare(old, new)
    for rows in found.values():
        for row in rows:
            assert row.difference.delta == pytest.approx(0, abs=1e-6)


def test_a_sample_that_names_nothing_takes_the_results_names() -> None:
    scored = {
        "alias": "t",
        "acc,strict": 0.5,
        "acc_stderr,strict": 0.1,
        "acc,loose": 1,
        "f1,loose": 1,
    }
    rows = [{"doc_id": 0, "acc": 0, "f1": 1}, {"doc_id": 1, "acc": 1, "f1": 1}]
    found = folders.completed(rows * 2, scored)
    assert [(row["filter"], row["metrics"]) for row in found] == [
        ("strict", ["acc"]),
        ("strict", ["acc"]),
        ("loose", ["acc", "f1"]),
        ("loose", ["acc", "f1"]),
    ]
    assert folders.completed([{"doc_id": 0}], {})[0]["metrics"] == []


def test_repeated_questions_are_kept_apart_in_one_cluster(corpus: Path) -> None:
    for side in ("before", "after"):
        (file,) = (corpus / side).rglob("samples_drop_*")
        file.write_text(file.read_text() * 2)
    tables, warnings = compare.load(corpus / "before")
    assert not [line for line in warnings if "drop_local: some rows ask the same" in line]
    scores = tables["drop_local"]
    assert scores.item[8:] == [f"{item} #2" for item in scores.item[:8]]
    assert len(set(scores.cluster)) == 8


def asked(doc: object, arguments: object = None) -> dict[str, object]:
    return {"doc": doc, "arguments": arguments}


def test_copies_of_a_question_are_one_cluster() -> None:
    rows = [
        asked({"q": 1}, ["one"]),
        asked({"q": 2}, ["two"]),
        asked({"q": 1}, ["other shots, one"]),  # the same document
        asked({"q": 2, "id": 7}, ["two"]),  # the same request
        asked({"q": 3}, ["three"]),
    ]
    assert identity.with_copies(list("abcde"), rows) == ["a", "b", "a", "b", "e"]
    # a row that two clusters share joins them
    assert identity.with_copies(list("abbde"), rows) == ["a", "a", "a", "a", "e"]
    empty = [asked({"q": i}, {}) for i in range(2)]
    assert identity.with_copies(["a", "b"], empty) == ["a", "b"]


def test_copies_under_other_numbers_are_said(corpus: Path) -> None:
    (file,) = (corpus / "after").rglob("samples_lambada_*")
    lines = file.read_text().splitlines()
    copies = [json.dumps({**json.loads(line), "doc_id": 900 + i}) for i, line in enumerate(lines)]
    file.write_text("".join(f"{line}\n" for line in lines + copies))
    found, warnings = outputs.lm_eval_tables(corpus / "after")
    scores = found["lambada_local"]
    assert len(scores.item) == 2 * len(set(scores.cluster))
    expected = f"{len(scores.item)} clusters count as {len(set(scores.cluster))}"
    assert f"lambada_local: some rows ask the same as others: {expected}" in warnings


def test_missing_scores_are_counted_and_left_out(corpus: Path) -> None:
    (file,) = (corpus / "after").rglob("samples_lambada_*")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["acc"] = None
    rows[1]["acc"] = math.nan
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, warnings = compare.compare(
        compare.load(corpus / "before")[0], compare.load(corpus / "after")[0]
    )
    assert any("lambada_local: 2 items lack acc on one side" in warning for warning in warnings)
    acc = next(row for row in found["lambada_local"] if row.metric == "acc")
    assert acc.difference.n == 6


def test_replies_of_both_kinds_are_shown() -> None:
    generated = outputs.replies(
        [{**row, "task": "gsm8k_local"} for row in rows_of("before", "gsm8k_local")], "exact_match"
    )
    assert generated[0].text == "111111111111"
    assert generated[0].question.startswith("Question: A firm sold") is False
    assert generated[0].question.startswith("A firm sold 10 goods")
    (chosen, *_) = outputs.replies([{**rows_of("before", "crows_local")[0], "task": "c"}])
    assert chosen.text == "choice 1"  # -94.5 is likelier than -109.3


def test_a_groups_table_has_its_own_figure_and_is_broken_down_by_its_tasks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sides = [CORPUS / "groups" / side / "by_question_local" for side in ("before", "after")]
    assert main(["compare", *map(str, sides), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["bench"] for row in rows} == {"bench by_question_local"}
    (acc,) = [r for r in rows if (r["metric"], r["group"]) == ("acc", "overall")]
    assert (acc["before"], acc["after"]) == pytest.approx((6 / 13, 5 / 13))  # lm-eval's own
    assert acc["family"] == 1
    tasks = [row for row in rows if (row["metric"], row["column"]) == ("acc", "task")]
    assert [(r["group"], r["n"], r["family"]) for r in tasks] == [
        ("large_local", 9, 2),
        ("small_local", 4, 2),
    ]
    assert main(["compare", *map(str, sides), "--flips"]) == 0
    out = capsys.readouterr().out
    assert "by_question_local: 1 of 13 have lower acc after" in out
    assert "- large_local/" in out


def test_a_group_that_weighs_its_tasks_equally_and_one_inside() -> None:
    sides = [
        compare.load(CORPUS / "groups" / side / "by_task_local")[0] for side in ("before", "after")
    ]
    found, _ = compare.compare(sides[0], sides[1])
    rows = {(r.column, r.group): r.difference for r in found["by_task_local"]}
    overall = rows["overall", "overall"]
    assert overall.before == pytest.approx(0.561111, abs=1e-6)  # lm-eval's own
    assert overall.n == 18
    assert overall.delta == pytest.approx((0 - 1 / 9 - 1 / 5) / 3)
    inner = rows["group", "by_task_local::inner_local"]
    assert inner.before == pytest.approx(0.541667, abs=1e-6)
    assert inner.n == 13
    assert "by_task_local::inner_local" not in found
    inside = sides[0]["by_task_local::inner_local"]
    assert figures.mean(inside, "acc") == pytest.approx(0.541667, abs=1e-6)
    # the group has no acc_norm: its tasks keep tables of their own
    assert {"small_local", "large_local", "third_local"} <= found.keys()
    assert sides[0]["by_task_local"].higher_is_better == {"acc": True}


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a results file says."""
    (file,) = folder.rglob("results_*.json")
    results = json.loads(file.read_text())
    change(results)
    file.write_text(json.dumps(results))


@pytest.fixture
def group(corpus: Path) -> Path:
    return corpus / "groups" / "before" / "by_question_local"


def test_a_groups_figure_that_is_no_mean_over_questions_has_no_row(group: Path) -> None:
    changed(group, lambda results: results["groups"]["by_question_local"].clear())
    tables, warnings = compare.load(group)
    assert list(tables) == ["large_local", "small_local"]
    assert [line for line in warnings if "by_question_local: its figure is no mean over" in line]


def test_a_group_without_all_its_samples_has_no_row(group: Path) -> None:
    next(group.rglob("samples_small*")).unlink()
    tables, warnings = compare.load(group)
    assert list(tables) == ["large_local"]
    assert [line for line in warnings if "some of its tasks are not here" in line]


def made_of(group: Path, inside: Any) -> None:
    """Say that the group is made of something else."""
    changed(group, lambda results: results["group_subtasks"].update(by_question_local=inside))


@pytest.mark.parametrize("inside", [["by_question_local"], 7, [["x"]]])
def test_groups_of_another_shape_are_one_line(group: Path, inside: Any) -> None:
    made_of(group, inside)
    with pytest.raises(InputError, match="by_question_local cannot be read"):
        compare.load(group)


@pytest.mark.parametrize("inside", [[7], "small_local", ["small_local", "nothing"]])
def test_groups_of_other_tasks_have_no_row(group: Path, inside: Any) -> None:
    made_of(group, inside)
    tables, warnings = compare.load(group)
    assert "by_question_local" not in tables
    assert [line for line in warnings if line.startswith("by_question_local: ")]


def test_a_figure_that_is_not_that_of_the_samples_is_said(corpus: Path) -> None:
    (file,) = (corpus / "before").rglob("samples_lambada*")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:5]))
    _, warnings = compare.load(corpus / "before")
    told = [line for line in warnings if "in the results file" in line]
    assert told
    assert all(line.startswith("lambada_local: ") for line in told)
    (file,) = (corpus / "after").rglob("samples_wikitext*")
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:5]))
    _, warnings = compare.load(corpus / "after")
    assert sum("wikitext_local: " in line and "results file" in line for line in warnings) == 3


def test_other_filters_are_other_metrics(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = {"before": "strict-match", "after": "flexible-extract"}
    for side in corpus.glob("*e*"):
        for file in side.rglob("samples_*"):
            if "gsm8k" not in file.name or side.name not in kept:
                file.unlink()
                continue
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            rows = [row for row in rows if row["filter"] == kept[side.name]]
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(compare.load(corpus / "before")[0]["gsm8k_local"].metrics) == [
        "exact_match,strict-match"
    ]
    assert main(["compare", str(corpus / "before"), str(corpus / "after")]) == 2
    assert "no metric has a score of the same question on both sides" in capsys.readouterr().err
    # one filter against two compares the one that both have
    both = compare.load(CORPUS / "after")[0]
    found, _ = compare.compare(compare.load(corpus / "before")[0], both)
    assert [row.metric for row in found["gsm8k_local"]] == ["exact_match,strict-match"]


def test_flips_are_those_of_the_filter(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = (corpus / "after").rglob("samples_gsm8k*")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["exact_match"] = float(row["filter"] == "flexible-extract")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["compare", str(corpus / "before"), str(corpus / "after"), "--flips"]) == 0
    out = capsys.readouterr().out
    assert "gsm8k_local: 0 of 8 have higher exact_match,strict-match after" in out
    assert "#2" not in out


def test_a_uid_of_others_is_no_name_of_a_question(corpus: Path) -> None:
    (file,) = (corpus / "before").rglob("samples_lambada*")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["doc"] |= {"uid": "user 7", "context_uid": "c"}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = compare.load(corpus / "before")[0]["lambada_local"]
    assert scores.item == [f"lambada_local/{i}" for i in range(8)]
    assert len(set(scores.cluster)) == 8


def undated(folder: Path, tasks: dict[str, float]) -> Path:
    """An output as of lm-eval 0.4.2, of ten questions a task that have this score."""
    folder.mkdir()
    for task, value in tasks.items():
        rows = [
            {"doc_id": i, "doc": {"q": f"{task} {i}"}, "target": "", "arguments": [[f"{i}"]],
             "resps": [["x"]], "filtered_resps": ["x"], "acc": value}
            for i in range(10)
        ]  # fmt: skip
        (folder / f"pretrained__x_{task}.jsonl").write_text(json.dumps(rows))
    results = {
        "results": {task: {"acc,none": value, "alias": task} for task, value in tasks.items()},
        "config": {},
        "configs": {task: {} for task in tasks},
        "versions": dict.fromkeys(tasks, 1),
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_an_undated_file_is_of_the_longest_task_that_its_name_ends_in(tmp_path: Path) -> None:
    folder = undated(tmp_path / "a", {"qa": 0.2, "long_qa": 0.9})
    tables, warnings = compare.load(folder)
    assert {name: set(t.metrics["acc"]) for name, t in tables.items()} == {
        "qa": {0.2},
        "long_qa": {0.9},
    }
    assert warnings == []
    (folder / "other__model_qa.jsonl").write_text("[]")
    with pytest.raises(InputError, match=r"other__model_qa.jsonl and pretrained__x_qa.jsonl both"):
        compare.load(folder)


def test_packed_files_are_named(tmp_path: Path, corpus: Path) -> None:
    for file in (corpus / "before").rglob("samples_*"):
        file.rename(f"{file}.gz")
    with pytest.raises(InputError, match=r"samples_crows.*jsonl.gz: is packed; unpack it"):
        compare.load(corpus / "before")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "results_1.json.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"results_1.json.gz: is packed"):
        compare.load(tmp_path / "packed")


@pytest.mark.parametrize("part", ["config", "configs", "versions"])
def test_results_without_a_part_are_none(corpus: Path, part: str) -> None:
    changed(corpus / "before", lambda results: results.update({part: None}))
    with pytest.raises(InputError, match="not an lm-eval results file"):
        compare.load(corpus / "before")


def test_results_that_output_path_gave_another_name(corpus: Path) -> None:
    (file,) = (corpus / "before").rglob("results_*.json")
    file.rename(file.with_name(file.name.replace("results_", "my.run_")))
    (file.parent / "results_summary.json").write_text("{}")  # somebody's own
    (file.parent / "log_2026-11-25T20-02-01.000000.json").write_text("{}")
    assert "gsm8k_local" in compare.load(corpus / "before")[0]


def test_folders_that_are_links_are_followed(corpus: Path) -> None:
    (corpus / "links").mkdir()
    (corpus / "links" / "model").symlink_to(corpus / "before" / "model")
    (corpus / "links" / "itself").symlink_to(corpus / "links")
    assert "gsm8k_local" in compare.load(corpus / "links")[0]


def test_files_that_begin_with_a_mark_are_read(corpus: Path) -> None:
    expected = compare.load(corpus / "before")[0]
    for file in (corpus / "before").rglob("*.json*"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert compare.load(corpus / "before")[0] == expected


def test_other_numbers_of_the_same_documents_are_refused(corpus: Path) -> None:
    (file,) = (corpus / "after").rglob("samples_drop_*")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["doc_id"] = len(rows) - 1 - row["doc_id"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="comparable, numbers of the documents differ"):
        compare.compare(compare.load(corpus / "before")[0], compare.load(corpus / "after")[0])


def test_samples_alone_are_no_output() -> None:
    file = next((CORPUS / "before").rglob("samples_drop_*"))
    with pytest.raises(InputError, match="samples alone; give the results file beside it"):
        compare.load(file)


def test_one_task_of_two_models_names_both_files_by_their_folders(corpus: Path) -> None:
    shutil.rmtree(corpus / "groups")
    with pytest.raises(InputError, match=r"in after/model/results_.* and in before/model/results"):
        compare.load(corpus)


def test_a_metric_without_any_score_is_not_passed_over(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in corpus.rglob("samples_*"):
        if "lambada" not in file.name:
            file.unlink()
    (file,) = (corpus / "after").rglob("samples_lambada_*")
    likelihoods = file.read_text().replace('"perplexity": ', '"perplexity": -1e999, "was": ')
    sides = [str(corpus / "before"), str(corpus / "after")]
    for lost in (likelihoods, likelihoods.replace("-1e999", '"none"')):
        file.write_text(lost)
        assert main(["compare", *sides]) == 0
        capsys.readouterr()
        assert main(["compare", *sides, "--fail-if-worse"]) == 2
        assert "no question has perplexity on both sides" in capsys.readouterr().err


@pytest.mark.parametrize("resps", [7, [[[10**400]], [[1]]], [[[1, 2], 3], 4], {"a": 1}])
def test_replies_of_another_shape_are_shown_or_named(
    corpus: Path, resps: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (corpus / "after").rglob("samples_*"):
        rows = [json.loads(line) | {"resps": resps, "acc": 1.0} for line in file.open()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["compare", str(corpus / "before"), str(corpus / "after"), "--flips"]) == 0
    assert "lambada_local: " in capsys.readouterr().out


@pytest.mark.parametrize("part", ["results", "groups", "group_subtasks", "n-samples"])
@pytest.mark.parametrize("value", [7, [7], "x", None])
def test_results_with_a_part_of_another_shape_are_read_or_named(
    corpus: Path, part: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    older(corpus / "after", stamped=True)
    changed(corpus / "after", lambda results: results.update({part: value}))
    code = main(["compare", str(corpus / "before"), str(corpus / "after")])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert (code, len(errors)) in ((0, 0), (2, 1))


def test_rows_in_another_order_are_the_same_questions(corpus: Path) -> None:
    (file,) = (corpus / "after").rglob("samples_drop_*")
    file.write_text("\n".join(reversed(file.read_text().splitlines())))
    found, _ = compare.compare(
        compare.load(corpus / "before")[0], compare.load(corpus / "after")[0]
    )
    assert found["drop_local"][0].difference.n == 8


def test_ratings_from_7_count_as_success(mtbench_output: Output) -> None:
    scores = outputs.mtbench_scores(mtbench_output("a", [6, 7, 8, 1, 1, 1, 1, 1]) / "score.json")
    assert scores.metrics["success"] == [0, 0, 1, 1, 1, 1, *[0] * 10]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\xff\xfe", b'{"doc_id": 1}\n', b'{"doc": 7, "doc_id": 0}\n', b"[" * 9999],
)
def test_broken_samples_are_one_line(
    corpus: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (corpus / "after").rglob("samples_*"):
        file.write_bytes(content)
    assert main(["compare", str(corpus / "before"), str(corpus / "after")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert str(corpus / "after") in errors[0]


def test_flips_show_both_replies(
    lm_eval_output: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = lm_eval_output("a", 0.0), lm_eval_output("b", 1.0)
    assert main(["compare", str(before), str(after), "--flips"]) == 0
    out = capsys.readouterr().out
    assert "tatqa: 0 of 80 have lower em after" in out
    assert "tatqa: 80 of 80 have higher em after" in out
    assert out.count("  before (0): ") == 80
    assert '  after (1): {"answer": ["gold"], "scale": "million"}' in out


def test_fail_if_worse_is_an_exit_code(lm_eval_output: Output) -> None:
    good, bad = lm_eval_output("a", 0.9, 1), lm_eval_output("b", 0.1, 2)
    assert main(["compare", str(good), str(bad)]) == 0
    assert main(["compare", str(good), str(bad), "--fail-if-worse"]) == 1
    assert main(["compare", str(bad), str(good), "--fail-if-worse"]) == 0


def test_margin_is_in_the_unit_shown(
    lm_eval_output: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    one = str(lm_eval_output("a", 0.5))
    assert main(["compare", one, one, "--json", "--margin", "25"]) == 0
    overall = json.loads(capsys.readouterr().out)[0]
    assert (overall["margin"], overall["verdict"]) == (0.25, "no difference")
    assert main(["compare", one, one, "--json", "--margin", "5"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["verdict"] == "cannot tell"


def test_several_after_are_runs_of_one_recipe(
    lm_eval_output: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(lm_eval_output(f"r{i}", 0.5, i)) for i in range(4)]
    assert main(["compare", *paths, "--json"]) == 0
    overall = json.loads(capsys.readouterr().out)[0]
    assert overall["runs"] == 3
    assert overall["se_runs"] >= 0


def test_lm_evals_own_seeds_are_read() -> None:
    assert outputs.seeds(CORPUS / "before") == {
        "fewshot_seed": 1234,
        "numpy_seed": 1234,
        "random_seed": 0,
        "torch_seed": 1234,
    }


def test_a_group_has_a_direction_only_where_all_its_tasks_say_the_same() -> None:
    def part(**directions: bool) -> record.Scores:
        return record.Scores.model_construct(higher_is_better=directions)

    parts = [part(acc=True, loss=False, odd=True), part(acc=True, loss=False, odd=False)]
    assert groups.agreed(parts, ["acc", "loss", "odd", "unknown"]) == {"acc": True, "loss": False}
    assert groups.agreed([part(acc=True), part()], ["acc"]) == {}


def test_a_metric_that_weighs_questions_in_a_task_has_no_group() -> None:
    def part(weights: dict[str, list[float]], values: list[float | None]) -> record.Scores:
        return record.Scores(
            bench="b",
            identity={},
            circumstances={},
            item=["1", "2"],
            cluster=["1", "2"],
            groups={},
            metrics={"m": values},
            weights=weights,
        )

    assert groups.plain_means([part({}, [1.0, 4.0])], "m") == {"b": 2.5}
    assert groups.plain_means([part({"m": [1.0, 3.0]}, [1.0, 4.0])], "m") is None
    assert groups.plain_means([part({}, [None, None])], "m") is None
    assert groups.plain_means([part({}, [1.0, 4.0])], "other") is None

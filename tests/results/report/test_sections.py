"""The report: what it says, that records alone decide it, --check, the page in a browser."""

import base64
import html
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from results import outputs
from results.__main__ import main
from results.report import between, collect, page, publish
from results.report import sections as report

ROOT = Path(__file__).resolve().parents[3]
CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)


def table_after(text: str, heading: str) -> list[list[str]]:
    """The cells of the table that follows a heading."""
    table = text.split(f"{heading}\n\n")[1].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_every_run_has_a_line_with_verdict_and_delta_first(results_folder: Path) -> None:
    rows = table_after((results_folder / "README.md").read_text(), "### TAT-QA: exact match, %")
    assert rows[0][:3] == ["run", "verdict", "delta (95 % interval)"]
    assert [row[0] for row in rows[2:]] == ["low", "middle", "high"]  # as they end
    low = rows[2]
    assert low[1] == "better"
    before, after, delta = float(low[3]), float(low[4]), float(low[2].split(" ")[0])
    assert after - before == pytest.approx(delta, abs=0.11)


def test_the_page_opens_with_the_best_run_its_verdict_and_its_cost(results_folder: Path) -> None:
    opening = (results_folder / "README.md").read_text().split("## All runs")[0]
    assert "Of 3 recipes the one that ends highest, in TAT-QA: exact match, %:" in opening
    assert "**low**: loss sigmoid, beta 0.02, learning rate 5e-06, " in opening
    assert "- TAT-QA: exact match, %: better" in opening
    assert "One training seed: the verdict is about this adapter" in opening
    assert "Trained on 96 pairs in 0.2 minutes, on cpu." in opening
    assert "measured another way" not in opening


def test_who_made_the_quoted_questions_is_said(results_folder: Path) -> None:
    """TAT-QA's licence asks for it; synthetic questions are nobody's."""
    found = collect.collect(results_folder / "runs")[0]
    assert list(report.sources(found)) == [("p", report.OF_TATQA)]
    for run in found:
        for record in run.records:
            for name, scores in record.scores.items():
                record.scores[name] = scores.model_copy(update={"stand_in": True})
    assert list(report.sources(found)) == []


def test_a_bases_revision_on_the_hub_is_named(results_folder: Path) -> None:
    file = results_folder / "runs" / "low" / "record.json"
    model = {"base": "org/model", "base_sha256": "org/model", "revision": "0123456789abcdef"}
    text = re.sub('^"model": .*,$', f'"model": {json.dumps(model)},', file.read_text(), flags=re.M)
    file.write_text(text)
    publish.write(results_folder / "runs", results_folder)
    assert "base org/model at revision 0123456789ab (" in (results_folder / "README.md").read_text()


def test_a_record_that_knows_no_commit_and_no_data_is_shown(results_folder: Path) -> None:
    file = results_folder / "runs" / "low" / "record.json"
    content = json.loads(file.read_text())
    content["provenance"] |= {"git": {}, "data": {}}
    file.write_text(json.dumps(content))
    assert publish.write(results_folder / "runs", results_folder) == []
    assert "data unknown (hash )" in (results_folder / "README.md").read_text()
    assert "code unknown, torch" in (results_folder / "README.md").read_text()


def test_headlines_are_one_family_over_the_runs(results_folder: Path) -> None:
    runs = {run.name: run for run in collect.collect(results_folder / "runs")[0]}
    for run in runs.values():
        for bench in run.rows:
            row = run.headline(bench)
            assert row.difference.family == 3
            assert row.difference.p >= row.difference.p_alone
    low = runs["low"].headline("tatqa").difference
    assert low.p == pytest.approx(3 * low.p_alone)
    assert low.low == pytest.approx(runs["low"].headline("tatqa").difference.interval(0.05 / 3)[0])


def test_single_fields_are_compared_among_runs_that_differ_in_nothing_else(
    results_folder: Path,
) -> None:
    pairs = between.between_runs(collect.collect(results_folder / "runs")[0])
    named = [(pair.field, pair.run.name, pair.reference.name) for pair in pairs]
    assert named == [("beta", "middle", "low"), ("beta", "high", "low")]
    assert all(pair.row.difference.family == 2 for pair in pairs)


def test_rank_and_alpha_count_as_one_field(results_folder: Path) -> None:
    for name, rank in (("low", 16), ("middle", 32)):
        file = results_folder / "runs" / name / "record.json"
        content = json.loads(file.read_text())
        content["training"]["recipe"] |= {"beta": 0.1, "lora_r": rank, "lora_alpha": 2 * rank}
        file.write_text(json.dumps(content))
    shutil.rmtree(results_folder / "runs" / "high")
    kinds = list(report.between(collect.collect(results_folder / "runs")[0]))
    assert [item for kind, item in kinds if kind == "h3"] == ["By LoRA rank and alpha"]


def test_a_stand_in_judge_is_named_wherever_its_ratings_stand(results_folder: Path) -> None:
    content = list(report.blocks(collect.collect(results_folder / "runs")[0], [], True))
    rated = [line for line in page.markdown(content).splitlines() if "rating from 1 to 10" in line]
    assert len(rated) == 1 + 1 + 2 * 3  # opening, table of all runs, sentence and own table
    assert all("STAND-IN JUDGE, measures nothing" in line for line in rated)
    runs = collect.collect(results_folder / "runs")[0]
    drawn = report.beta_figure(runs)
    for run in runs:
        del run.rows["mtbench"]
    assert (
        report.beta_figure(runs) == drawn
    )  # beside the log stands no rating that measures nothing


def test_synthetic_questions_are_named_wherever_their_scores_stand(
    results_folder: Path, lm_eval_output: Callable[..., Path]
) -> None:
    made = lm_eval_output("made", 0.5)
    for file in made.rglob("samples_*"):
        file.write_text(file.read_text().replace('"uid": "', '"uid": "synthetic-'))
    assert not outputs.lm_eval_scores(lm_eval_output("real", 0.5)).stand_in
    assert outputs.lm_eval_scores(made).stand_in
    runs = collect.collect(results_folder / "runs")[0]
    points = report.beta_figure(runs)
    for file in (results_folder / "runs").glob("*/record.json"):
        content = json.loads(file.read_text())
        content["scores"]["tatqa"]["stand_in"] = True
        file.write_text(json.dumps(content))
    synthetic = collect.collect(results_folder / "runs")[0]
    lines = page.markdown(list(report.blocks(synthetic, [], True))).splitlines()
    named = [line for line in lines if "exact match, %" in line]
    assert len(named) == 2 + 1 + 2 * 3
    assert all("TAT-QA (SYNTHETIC QUESTIONS, no TAT-QA figure)" in line for line in named)
    assert report.beta_figure(synthetic) != points


def test_the_same_records_give_the_same_bytes(results_folder: Path) -> None:
    first = {path: path.read_bytes() for path in results_folder.rglob("*") if path.is_file()}
    publish.write(results_folder / "runs", results_folder)
    assert {path: path.read_bytes() for path in first} == first
    assert publish.stale(results_folder / "runs", results_folder) == []


def test_the_readme_needs_no_raw_files(results_folder: Path) -> None:
    for raw in [*results_folder.glob("runs/*/tatqa"), *results_folder.glob("runs/*/mtbench")]:
        shutil.rmtree(raw)
    assert publish.stale(results_folder / "runs", results_folder) == []


def test_check_notices_all_that_is_stale(
    results_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = ["report", "--check", "--results", str(results_folder)]
    assert main(check) == 0
    (results_folder / "README.md").write_text("better")
    (results_folder / "figures/low-types.svg").unlink()
    (results_folder / "figures/wish.svg").write_text("<svg/>")
    file = results_folder / "runs/high/record.json"
    content = json.loads(file.read_text())
    content["scores"]["tatqa"]["metrics"]["em"] = [0.0] * 80
    file.write_text(json.dumps(content))
    assert main(check) == 1
    errors = capsys.readouterr().err.splitlines()
    assert all(re.fullmatch(r"error: .*; report again without --check", line) for line in errors)
    assert len(errors) == 3
    for name in ("README.md", "figures/low-types.svg", "figures/high-types.svg"):
        assert [line for line in errors if line.startswith(f"error: {results_folder / name} ")]


def test_check_notices_a_manifest_that_was_merged_or_edited(results_folder: Path) -> None:
    manifest = results_folder / "report.manifest.json"
    manifest.write_text(manifest.read_text().replace("low-types", "lower-types"))
    (problem,) = publish.stale(results_folder / "runs", results_folder)
    assert problem == f"{manifest} is not as this program wrote it: delete it"
    manifest.unlink()
    assert publish.write(results_folder / "runs", results_folder) == []
    assert publish.stale(results_folder / "runs", results_folder) == []


def test_a_record_that_would_break_a_line_is_one_line(
    results_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results_folder / "runs/low/record.json").write_text('{"version": "9\\n\\u001b[31m"}')
    for check in ([], ["--check"]):
        assert main(["report", *check, "--results", str(results_folder)]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert all(line.startswith("error: ") for line in lines)
        assert not any("\x1b" in line for line in lines)


def test_check_refuses_an_invalid_record(
    results_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results_folder / "runs/low/record.json").write_text('{"version": 1}')
    assert main(["report", "--check", "--results", str(results_folder)]) == 1
    assert "not a valid record" in capsys.readouterr().err


def test_a_base_scored_otherwise_since_is_named(
    results_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = results_folder / "runs/base-tiny/record.json"
    file.write_text(file.read_text().replace('"tatqa_span": 1.0', '"tatqa_span": 2.0'))
    assert main(["report", "--results", str(results_folder)]) == 1
    errors = capsys.readouterr().err
    assert "high and base-tiny: tatqa: not comparable, task version differ" in errors


def test_figures_are_svg_that_hold_no_date_and_no_background(results_folder: Path) -> None:
    names = {path.name for path in (results_folder / "figures").iterdir()}
    assert names == {
        f"{run}-{kind}.svg"
        for run in ("low", "middle", "high")
        for kind in ("types", "training", "radar")
    }
    for path in (results_folder / "figures").iterdir():
        text = path.read_text()
        ET.fromstring(text)
        assert "dc:date" not in text
        assert "#ffffff" not in text
        assert "#000000" not in text


def test_no_run_yet_is_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert main(["report", "--results", str(tmp_path)]) == 0
    assert "No run is recorded yet" in (tmp_path / "README.md").read_text()


def test_a_mistyped_folder_of_runs_is_one_line_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--runs", str(tmp_path / "rnus")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'rnus'}: no such folder of runs\n"
    assert list(tmp_path.iterdir()) == []


def test_markdown_cells_cannot_break_the_table() -> None:
    text = page.markdown([("table", [["a", "b"], ["x|y", "<b>"]])])
    assert text == "| a | b |\n| --- | --- |\n| x\\|y | \\<b> |\n"


def test_the_committed_report_is_what_the_records_say() -> None:
    assert publish.stale(ROOT / "results/runs", ROOT / "results") == []


def test_model_output_cannot_end_the_embedded_data(results_folder: Path) -> None:
    text = (results_folder / "report.html").read_text()
    assert text.count("</script>") == 3
    packed = re.search(r'id="replies">([^<]*)<', text)
    assert packed
    assert b"owned" in zlib.decompress(base64.b64decode(packed[1]))
    links = re.findall(r'(?:src|href)=\\?"([^"\\]*)', text)
    assert all(link.startswith("#") for link in links)  # nothing is fetched: it works from a file


# What a person would do on the page, and what then stands there.
ACTIONS = """
<script>
ready.then(() => {
const options = name => [...form[name].options].map(o => o.value);
const choose = (name, value) => {
  form[name].value = value; form[name].dispatchEvent(new Event("change"));
};
const count = () => document.getElementById("count").textContent;
const seen = {all: count(), runs: options("run"), kinds: options("type or category")};
choose("run", "low"); seen.low = count();
choose("type or category", "count"); seen.kind = count();
choose("outcome", "won"); seen.won = count();
seen.marks = [...document.querySelectorAll("#list summary span")].map(n => n.textContent);
seen.shown = document.querySelector("#list pre").textContent;
seen.text = document.querySelector("#list summary").textContent;
choose("outcome", "all"); choose("type or category", "all");
choose("bench", "mtbench"); seen.judged = count();
seen.judge = document.querySelector("#list em").textContent;
seen.turns = [...document.querySelector("#list details").querySelectorAll("h4")]
  .map(n => n.textContent);
form.text.value = "And then"; form.text.dispatchEvent(new Event("input")); seen.search = count();
form.text.value = ""; choose("bench", "all"); choose("run", "all");
const before = document.querySelectorAll("#list details").length;
document.getElementById("more").click();
seen.more = [before, document.querySelectorAll("#list details").length];
seen.title = document.title;
seen.scripts = document.querySelectorAll("#list script, #report script").length;
seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
seen.focusable = [...document.querySelectorAll("select, input, summary, button")]
  .every(n => n.tabIndex === 0);
seen.labels = [...form.elements].every(n => n.labels.length === 1);
document.body.textContent = JSON.stringify(seen);
});
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH to open the page")
def test_the_page_in_a_browser(results_folder: Path, tmp_path: Path) -> None:
    acted = tmp_path / "acted.html"
    acted.write_text(
        (results_folder / "report.html").read_text().replace("</html>", ACTIONS + "</html>")
    )
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [
            *command,
            "--virtual-time-budget=20000",
            "--window-size=500,900",
            "--dump-dom",
            acted.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    body = re.search(r"<body[^>]*>(.*)</body>", done.stdout, re.S)
    assert body, done.stderr
    seen = json.loads(html.unescape(body[1]))
    assert seen["runs"] == ["all", "high", "low", "middle"]
    assert set(seen["kinds"]) == {
        "all",
        "span",
        "multi-span",
        "arithmetic",
        "count",
        *(f"kind {i}" for i in range(4)),
    }
    assert seen["all"] == f"{3 * (80 + 16)} of {3 * (80 + 16)} questions"
    assert seen["low"].startswith("96 of")
    assert seen["kind"].startswith("20 of")
    records = collect.collect(results_folder / "runs")[0]
    low = next(run for run in records if run.record.name == "low")
    before, after = (side.scores["tatqa"] for side in (low.base, low.record))
    counted = [i for i, kind in enumerate(before.groups["answer_type"]) if kind == "count"]
    won = sum(
        float(after.metrics["em"][i] or 0) > float(before.metrics["em"][i] or 0) for i in counted
    )
    assert seen["won"].startswith(f"{won} of")
    assert set(seen["marks"]) == {"won"}
    assert "answer" in seen["shown"]
    assert seen["judged"].startswith("16 of")
    assert seen["judge"].startswith("stand-in-judge")
    assert seen["turns"] == ["mtbench 0, turn 1: First?", "mtbench 0, turn 2: And then?"]
    assert seen["search"].startswith("8 of")
    assert seen["more"] == [20, 70]
    assert seen["title"] == "Before and after"  # the reply's script did not run
    assert seen["scripts"] == 0
    assert seen["wide"] <= 0
    assert seen["focusable"]
    assert seen["labels"]

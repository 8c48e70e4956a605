"""Every task through the real `lm_eval` command, from another folder, on the shipped base."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tatqa_task import answer, data, harness, metric, synthetic, task_files
from tatqa_task.__main__ import main

GROUPS = ("tatqa", "tatqa_test", "tatqa_train", "tatqa_cot", "tatqa_calc")
TYPES = ("span", "multi_span", "arithmetic", "count")
METRICS = ("em", "em_strict", "f1", "scale_em", "parsed", "lenient_em")
LIMIT = 3
ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *command: str, source: str = "synthetic") -> subprocess.CompletedProcess[str]:
    """Run a module of this Python in another folder; code after `-c`."""
    environment = os.environ | {"TATQA_DATA": source, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *([] if command[0] == "-c" else ["-m"]), *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )


def evaluate(
    folder: Path,
    model: str,
    *options: str,
    launcher: tuple[str, ...] = (),
    source: str = "synthetic",
) -> tuple[Path, str]:
    """The output folder of one scoring run, and what the run said."""
    command = [
        *launcher,
        "lm_eval",
        "--model",
        "hf",
        "--model_args",
        model,
        "--device",
        "cpu",
        "--batch_size",
        "8",
    ]
    options = (
        *options,
        "--log_samples",
        "--output_path",
        str(folder / "out"),
        "--gen_kwargs",
        "max_gen_toks=32",
    )
    done = run(folder, *command, *options, source=source)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out", done.stdout + done.stderr


def results(out: Path) -> dict[str, dict[str, float]]:
    (path,) = out.rglob("results_*.json")
    found: dict[str, dict[str, float]] = json.loads(path.read_text())["results"]
    return {
        task: {key.removesuffix(",none"): value for key, value in row.items()}
        for task, row in found.items()
    }


def samples(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (file.name.split("_2")[0], sample["doc"]["uid"]): sample
        for file in out.rglob("samples_*.jsonl")
        for sample in map(json.loads, file.read_text().splitlines())
    }


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> tuple[Path, str]:
    """All groups, chat template, no adapter."""
    model = f"pretrained={tiny_base},enable_thinking=False"
    options = ("--tasks", ",".join(GROUPS), "--limit", str(LIMIT), "--apply_chat_template")
    return evaluate(tmp_path_factory.mktemp("chat"), model, *options)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A PEFT adapter with random weights that change what the small model says."""
    return random_adapter(tiny_base, tmp_path_factory.mktemp("adapter"))


def random_adapter(base: Path, folder: Path) -> Path:
    """Write a LoRA adapter of random weights for a base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    lora = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, adapter: Path
) -> tuple[Path, str]:
    """All groups, plain text, with an adapter and two examples."""
    options = ("--tasks", ",".join(GROUPS), "--limit", "1", "--num_fewshot", "2", "--write_out")
    return evaluate(
        tmp_path_factory.mktemp("plain"), f"pretrained={tiny_base},peft={adapter}", *options
    )


def test_groups_have_four_subtasks_with_size_and_error(chat: tuple[Path, str]) -> None:
    found = results(chat[0])
    for group in GROUPS:
        subtasks = [found[f"{group}_{kind}"] for kind in TYPES]
        for name in METRICS:
            assert found[group][name] == pytest.approx(sum(row[name] for row in subtasks) / 4)
            assert all(f"{name}_stderr" in row for row in [found[group], *subtasks])


def test_replies_scored_again_give_what_lm_eval_summed_up(
    chat: tuple[Path, str], tmp_path: Path
) -> None:
    """An output whose scores, means, errors and versions are of another reader."""
    spoilt = shutil.copytree(chat[0], tmp_path / "spoilt")
    for file in spoilt.rglob("samples_*.jsonl"):
        rows = [json.loads(line) | {"em": 0.5} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (whole,) = chat[0].rglob("results_*.json")
    (path,) = spoilt.rglob("results_*.json")
    content = json.loads(path.read_text())
    for table in (content["results"], content["groups"]):
        for row in table.values():
            row.update({key: 0.5 for key in row if key.endswith(",none")})
    content["versions"] = dict.fromkeys(content["versions"], "1.0")
    path.write_text(json.dumps(content))

    assert main(["rescore", str(spoilt), str(tmp_path / "again")]) == 0

    again = json.loads((tmp_path / "again" / path.name).read_text())
    original = json.loads(whole.read_text())
    assert again["versions"] == original["versions"]
    for name in ("results", "groups"):
        assert again[name].keys() == original[name].keys()
        for task, row in original[name].items():
            assert again[name][task].keys() == row.keys()
            for key, value in row.items():
                numbers = isinstance(value, float)
                wanted = pytest.approx(value) if numbers else value
                assert again[name][task][key] == wanted
    assert samples(tmp_path / "again") == samples(chat[0])


def test_rescoring_overwrites_nothing_and_needs_every_sample(
    chat: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("kept")
    assert main(["rescore", str(chat[0]), str(tmp_path / "mine")]) == 2
    assert "name a new folder" in capsys.readouterr().err
    torn = shutil.copytree(chat[0], tmp_path / "torn")
    next(torn.rglob("samples_tatqa_span_*.jsonl")).unlink()
    assert main(["rescore", str(torn), str(tmp_path / "new")]) == 2
    assert "no samples of tatqa_span beside it" in capsys.readouterr().err
    assert main(["rescore", str(tmp_path / "mine"), str(tmp_path / "new")]) == 2
    assert "there are: none" in capsys.readouterr().err
    next(torn.rglob("samples_tatqa_count_*.jsonl")).write_bytes(b"\xff\xfe{")
    assert main(["rescore", str(torn), str(tmp_path / "new")]) == 2
    assert "is no lm-eval samples file" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_samples_carry_what_others_need(chat: tuple[Path, str]) -> None:
    found = samples(chat[0])
    assert len(found) == len(GROUPS) * len(TYPES) * LIMIT
    contexts = {
        q.uid: (c, q)
        for split in data.FILES
        for c in data.load(split, "synthetic")
        for q in c.questions
    }
    for (_, uid), sample in found.items():
        context, question = contexts[uid]
        doc = sample["doc"]
        assert (doc["context_uid"], doc["question"]) == (context.uid, question.question)
        assert json.loads(doc["answer"]) == question.answer
        assert [doc["answer_type"], doc["answer_from"], doc["scale"]] == [
            question.answer_type, question.answer_from, question.scale,
        ]  # fmt: skip
        reply = answer.parse(sample["filtered_resps"][0], doc["form"])
        assert sample["em"] == metric.score(question, reply.answer, reply.scale).em
        assert sample["target"] == answer.gold_reply(question, doc["form"])


def test_each_group_reads_its_split(chat: tuple[Path, str]) -> None:
    splits = {
        "tatqa": "validation",
        "tatqa_test": "test",
        "tatqa_train": "train",
        "tatqa_cot": "validation",
        "tatqa_calc": "validation",
    }
    for (file, uid), sample in samples(chat[0]).items():
        name = file.removeprefix("samples_").removesuffix(
            f"_{sample['doc']['answer_type'].replace('-', '_')}"
        )
        assert uid.startswith(f"synthetic-{splits[name]}-")


def test_chat_template_and_reasoning(chat: tuple[Path, str]) -> None:
    for (file, _), sample in samples(chat[0]).items():
        prompt = sample["arguments"]["gen_args_0"]["arg_0"]
        assert prompt.startswith("<|im_start|>user\nRead the table and the text")
        assert prompt.count("Question:") == 1
        assert ("Think step by step" in prompt) == ("cot" in file)


def test_generation_is_greedy_and_ends_where_a_next_turn_begins(chat: tuple[Path, str]) -> None:
    for (file, _), sample in samples(chat[0]).items():
        settings = sample["arguments"]["gen_args_0"]["arg_1"]
        form = sample["doc"]["form"]
        assert settings["until"] == list(task_files.UNTIL[form]), file
        assert settings["do_sample"] is False


def test_examples_come_from_other_contexts_of_the_training_split(plain: tuple[Path, str]) -> None:
    train = data.load("train", "synthetic")
    targets = {f"Question: {q.question}\n": c.uid for c in train for q in c.questions}
    for sample in samples(plain[0]).values():
        prompt = sample["arguments"]["gen_args_0"]["arg_0"]
        asked = [line + "\n" for line in prompt.splitlines() if line.startswith("Question:")]
        assert len(asked) == 3
        assert all(example in targets for example in asked[:2])
        reports = prompt.split("Read the table and the text")[1:]
        assert all(
            report.split("Question:")[0] != reports[2].split("Question:")[0]
            for report in reports[:2]
        )
        assert sum(f"{cue}: " in prompt for cue in ("Answer", "Reasoning")) == 1  # before targets


def test_write_out_shows_prompt_and_target(plain: tuple[Path, str]) -> None:
    assert "document 0; context prompt" in plain[1]
    assert "target string or answer choice index (starting on next line):\n" in plain[1]


def test_all_tasks_run_with_an_adapter(plain: tuple[Path, str], adapter: Path) -> None:
    assert len(samples(plain[0])) == len(GROUPS) * len(TYPES)
    (path,) = plain[0].rglob("results_*.json")
    assert json.loads(path.read_text())["config"]["model_args"]["peft"] == str(adapter)


def test_two_processes_give_the_numbers_of_one(
    chat: tuple[Path, str], tmp_path: Path, tiny_base: Path
) -> None:
    launcher = ("accelerate.commands.launch", "--cpu", "--num_processes", "2", "-m")
    model = f"pretrained={tiny_base},enable_thinking=False"
    options = ("--tasks", "tatqa", "--limit", str(LIMIT), "--apply_chat_template")
    out, _ = evaluate(tmp_path, model, *options, launcher=launcher)
    one, two = results(chat[0]), results(out)
    assert two == {task: row for task, row in one.items() if task in two}
    assert {key: sample["resps"] for key, sample in samples(out).items()} == {
        key: sample["resps"] for key, sample in samples(chat[0]).items() if key in samples(out)
    }


UPSTREAM_RUN = """
import json, sys
sys.modules["tatqa_task"] = None  # any import of it raises
import lm_eval
from lm_eval.tasks import TaskManager
folder, model, tasks, limit = sys.argv[1:]
found = lm_eval.simple_evaluate(
    model="hf", model_args=model, tasks=tasks.split(","), limit=int(limit), batch_size=8,
    device="cpu", apply_chat_template=True, gen_kwargs="max_gen_toks=32", log_samples=True,
    bootstrap_iters=0,
    task_manager=TaskManager(include_path=folder, include_defaults=False),
)
samples = {
    f"{task} {row['doc']['uid']}": row["filtered_resps"] for task in found["samples"]
    for row in found["samples"][task]
}
print(json.dumps([found["results"], samples, found["versions"]]))
"""


def test_the_folder_for_lm_eval_itself_scores_the_same(
    chat: tuple[Path, str], tmp_path: Path, tiny_base: Path
) -> None:
    """The same model, questions and options, and none of this package's modules."""
    folder = tmp_path / "tatqa"
    assert main(["upstream", str(folder)]) == 0
    groups = ["tatqa", "tatqa_cot", "tatqa_calc"]
    model = f"pretrained={tiny_base},enable_thinking=False"
    done = run(tmp_path, "-c", UPSTREAM_RUN, str(folder), model, ",".join(groups), str(LIMIT))
    assert done.returncode == 0, done.stderr[-3000:]
    rows, replies, versions = json.loads(done.stdout.splitlines()[-1])
    ours, own_replies = results(chat[0]), samples(chat[0])
    for task in [f"{group}_{kind}" for group in groups for kind in TYPES] + groups:
        found = {key.removesuffix(",none"): value for key, value in rows[task].items()}
        for metric_name in METRICS:
            assert found[metric_name] == ours[task][metric_name], (task, metric_name)
        assert float(versions[task]) == float(task_files.VERSION)
    for name, reply in replies.items():
        task, uid = name.split(" ")
        assert reply == own_replies[f"samples_{task}", uid]["filtered_resps"]


SMALL_MODEL = Path(
    os.environ.get("TATQA_BENCH_SMALL_MODEL", ROOT.parent / "models" / "smollm2-135m-hf")
)


@pytest.mark.real
def test_calc_with_a_real_small_model_with_and_without_an_adapter(
    tmp_path: Path, shared_data: Path
) -> None:
    """SmolLM2-135M-Instruct on real questions; the adapter, of random weights, changes replies."""
    if not (SMALL_MODEL / "config.json").is_file():
        pytest.skip(f"needs a small chat model in {SMALL_MODEL}, or $TATQA_BENCH_SMALL_MODEL")
    adapter = random_adapter(SMALL_MODEL, tmp_path / "lora")
    options = ("--tasks", "tatqa_calc", "--limit", "1", "--apply_chat_template")
    replies = []
    for name, more in (("base", ""), ("tuned", f",peft={adapter}")):
        folder = tmp_path / name
        folder.mkdir()
        model = f"pretrained={SMALL_MODEL},dtype=float32,max_length=8192{more}"
        out, _ = evaluate(folder, model, *options, source=str(shared_data / "tatqa"))
        found = results(out)
        assert set(METRICS) | {"calc_used"} <= found["tatqa_calc"].keys()
        rows = samples(out).values()
        assert {row["doc"]["answer_type"].replace("-", "_") for row in rows} == set(TYPES)
        for row in rows:
            doc = row["doc"]
            read = answer.parse(row["filtered_resps"][0], "calc")
            question = harness._question(doc)
            assert row["em"] == metric.score(question, read.answer, read.scale).em
            assert row["calc_used"] == read.calc_used
        replies.append([row["filtered_resps"] for row in rows])
    assert replies[0] != replies[1]


def export_and_score(out: Path, gold: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """What our own `export` and `score` make of the samples of group tatqa."""
    files = [next(out.rglob(f"samples_tatqa_{kind}_*.jsonl")) for kind in TYPES]
    asked = {
        json.loads(line)["doc"]["uid"] for file in files for line in file.read_text().splitlines()
    }
    contexts = [c | {"questions": [q for q in c["questions"] if q["uid"] in asked]} for c in gold]
    (folder / "gold.json").write_text(json.dumps(contexts))
    assert main(["export", *map(str, files), "--out", str(folder / "pred.json")]) == 0
    arguments = ["--gold", str(folder / "gold.json"), "--pred", str(folder / "pred.json")]
    assert main(["score", *arguments, "--json", str(folder / "out.json")]) == 0
    scored: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return scored


def assert_same_numbers(out: Path, scored: dict[str, Any], n: int) -> None:
    found = results(out)["tatqa"]
    assert scored["n"] == n
    assert [scored["em"], scored["f1"], scored["scale"]] == [
        pytest.approx(found[name], abs=1e-12) for name in ("em", "f1", "scale_em")
    ]
    for (file, uid), sample in samples(out).items():
        if "cot" not in file and "calc" not in file and uid in scored["per_question"]:
            assert scored["per_question"][uid] == [sample["em"], sample["f1"], sample["scale_em"]]


def test_export_then_score_gives_lm_evals_numbers(chat: tuple[Path, str], tmp_path: Path) -> None:
    gold = synthetic.generate("validation", synthetic.SIZES["validation"])
    assert_same_numbers(chat[0], export_and_score(chat[0], gold, tmp_path), len(TYPES) * LIMIT)


@pytest.mark.real
def test_the_same_on_real_files_with_a_context_budget(
    tmp_path: Path, tiny_base: Path, shared_data: Path
) -> None:
    source = shared_data / "tatqa"
    options = (
        "--tasks",
        "tatqa",
        "--limit",
        "4",
        "--metadata",
        '{"context_budget": 600}',
        "--apply_chat_template",
    )
    out, said = evaluate(tmp_path, f"pretrained={tiny_base}", *options, source=str(source))
    assert said.count("context budget of 600 tokens: ") == len(TYPES)
    gold = json.loads((source / data.FILES["validation"][0]).read_text())
    assert_same_numbers(out, export_and_score(out, gold, tmp_path), len(TYPES) * 4)


def test_validate_and_ls_work_from_another_folder(tmp_path: Path) -> None:
    done = run(tmp_path, "lm_eval", "validate", "--tasks", ",".join(GROUPS))
    assert "All tasks found and valid" in done.stdout
    listed = run(tmp_path, "lm_eval", "ls", "groups").stdout
    assert all(f"|{group} " in listed for group in GROUPS)


def test_unusable_data_is_one_line(tmp_path: Path, tiny_base: Path) -> None:
    command = ("lm_eval", "--model", "dummy", "--tasks", "tatqa_span")
    done = run(tmp_path, *command, source=str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"error: TATQA_DATA={tmp_path / 'nowhere'} is no folder; name one with the official "
        "files, or 'synthetic'"
    )
    assert not list(tmp_path.iterdir())

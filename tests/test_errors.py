"""The error contract: a hundred mistakes of a new user, each answered by one line and an exit code.

One line on standard error that says what, where and how to go on; 2 for a wrong call or input, 1
for work that failed; no traceback; no file of the user's changed and nothing left behind.
Refusals come before anything heavy is imported, which is what makes them quick: that torch is not
there is checked, not the clock.

The commands run one after the other in one process for the light rows and one for those that need
the libraries; each row is a test of its own. This file is also that process: `python
tests/test_errors.py` reads rows from standard input.
"""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "train" / "bases" / "tiny-tatqa"
HEAVY = ("torch", "transformers", "datasets", "lm_eval", "fastchat", "matplotlib", "trl", "peft")


@dataclass(frozen=True)
class Mistake:
    """A command line of `tatqa-bench` in the user's folder, and what must come of it."""

    call: str
    code: int
    says: str
    environment: dict[str, str] = field(default_factory=dict)
    module: str = "tatqa_bench.__main__"
    interrupted_in: str = ""  # where Ctrl-C comes, a function that is called


KEY = {"OPENAI_API_KEY": "x", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
TORN = {"TATQA_DATA": "data-torn"}
NO_DATA = {"TATQA_DATA": "no-such-folder"}
NO_FILES = {"TATQA_DATA": "data-empty"}
SYNTHETIC = {"TATQA_DATA": "synthetic"}
TASK = "tatqa_task.__main__"

LIGHT = {
    # the front
    "a command with a typo": Mistake("trian x", 2, "did you mean train?"),
    "a recipe to copy that is not there": Mistake("recipes cp dmeo", 2, "tatqa-bench recipes ls"),
    "a copy over a file": Mistake("recipes cp demo good.yaml", 2, "good.yaml exists"),
    "a copy to no folder": Mistake("recipes cp demo no/x.yaml", 2, "cannot write no/x.yaml"),
    "a copy from elsewhere": Mistake("recipes cp ../recipes/demo", 2, "no recipe"),
    "recipes, and nothing": Mistake("recipes", 2, "required: COMMAND"),
    # recipes
    "no such recipe": Mistake("train nothing.yaml", 2, "nothing.yaml: cannot read the recipe"),
    "a folder as recipe": Mistake("train bench", 2, "bench: cannot read the recipe"),
    "an empty recipe": Mistake("train empty.yaml", 2, "empty.yaml"),
    "a torn recipe": Mistake("train torn.yaml", 2, "torn.yaml: not YAML"),
    "a list as recipe": Mistake("train list.yaml", 2, "list.yaml: a recipe is a flat mapping"),
    "a recipe that is not text": Mistake("train binary.yaml", 2, "binary.yaml: not YAML"),
    "a recipe without a base": Mistake("train nobase.yaml", 2, "model_name_or_path"),
    "a key with a typo": Mistake("train typo.yaml", 2, "did you mean `beta`?"),
    "an option with a typo": Mistake("train good.yaml --betta 1", 2, "did you mean `beta`?"),
    "an option without its value": Mistake("train good.yaml --beta", 2, "--beta"),
    "a word for a number": Mistake("train good.yaml --beta much", 2, "beta"),
    "a rank of nothing": Mistake("train good.yaml --lora_r 0", 2, "lora_r"),
    "a loss that is none": Mistake("train good.yaml --loss_type [dpo]", 2, "loss_type"),
    "no pairs at all": Mistake("train good.yaml --max_pairs 0", 2, "max_pairs"),
    "mined, of nothing": Mistake("train good.yaml --strategy mined", 2, "samples"),
    "training into no folder": Mistake("train good.yaml", 2, "--output_dir"),
    "an option twice": Mistake("train good.yaml --beta 1 --beta 2", 2, "--beta is given twice"),
    "a run into an unset variable": Mistake(
        "train good.yaml --output_dir ", 2, "--output_dir: expected a folder, found an empty text"
    ),
    "a kind of mistake with a typo": Mistake(
        'train good.yaml --corruptions {"wrong_scael":1} --output_dir o', 2, "`wrong_scale`"
    ),
    "a base folder that is not there": Mistake(
        "train missing.yaml --output_dir o", 2, "cannot load ./nowhere: no such model folder"
    ),
    "a base without a config": Mistake(
        "train good.yaml --model_name_or_path bench --output_dir o", 2, "bench: the folder holds no"
    ),
    "a base without weights": Mistake(
        "train good.yaml --model_name_or_path base-empty --output_dir o", 2, "no weights"
    ),
    "a base without a tokenizer": Mistake(
        "train good.yaml --model_name_or_path base-mute --output_dir o", 2, "it has no tokenizer"
    ),
    "a base cut short": Mistake(
        "train good.yaml --model_name_or_path base-short --output_dir o", 2, "model.safetensors"
    ),
    "a base with a shard missing": Mistake(
        "train good.yaml --model_name_or_path base-shards --output_dir o", 2, "b.safetensors is m"
    ),
    "a base whose config is torn": Mistake(
        "train good.yaml --model_name_or_path base-torn --output_dir o", 2, "config.json is no wh"
    ),
    "an adapter for a base": Mistake(
        "train good.yaml --model_name_or_path adapter --output_dir o", 2, "it holds an adapter"
    ),
    "a layer that is not there": Mistake(
        "train good.yaml --lora_target_modules qproj --output_dir o", 2, "did you mean `q_proj`?"
    ),
    "no adapter to train on from": Mistake(
        "train good.yaml --init_adapter bench --output_dir o", 2, "bench holds no adapter"
    ),
    "an adapter of another rank": Mistake(
        "train good.yaml --init_adapter other --lora_r 8 --output_dir o", 2, "has lora_r 16"
    ),
    "an adapter of another base": Mistake(
        "train good.yaml --init_adapter other --output_dir o", 2, "trained on another base"
    ),
    "an adapter cut short": Mistake(
        "train good.yaml --init_adapter other-short --output_dir o", 2, "safetensors is damaged"
    ),
    "a run over a garbled one": Mistake(
        "train good.yaml --output_dir trained/good", 2, "train.json is damaged"
    ),
    "training without data": Mistake(
        "train good.yaml --output_dir o", 2, "no-such-folder", NO_DATA
    ),
    "training on torn data": Mistake(
        "train good.yaml --output_dir o", 2, "data-torn/tatqa_dataset_", TORN
    ),
    "a recipe too many": Mistake("train good.yaml typo.yaml", 2, "typo.yaml"),
    "no recipe": Mistake("train", 2, "required: RECIPE.yaml"),
    "another program's adapter": Mistake(
        "train good.yaml --output_dir adapter", 2, "adapter holds an adapter", SYNTHETIC
    ),
    "an adapter into a file": Mistake(
        "train good.yaml --output_dir a-file", 2, "a-file is no folder", SYNTHETIC
    ),
    "an adapter below a file": Mistake(
        "train good.yaml --output_dir a-file/b/c", 2, "a-file is no folder", SYNTHETIC
    ),
    "an adapter over a base": Mistake(
        "train good.yaml --output_dir base-empty", 2, "base-empty holds config.json", SYNTHETIC
    ),
    # pairs
    "pairs to nowhere": Mistake("pairs --out no/pairs.jsonl", 2, "no/pairs.jsonl", SYNTHETIC),
    "pairs without a file": Mistake("pairs", 2, "--out"),
    "a strategy with a typo": Mistake("pairs --strategy minned --out p", 2, "invalid choice"),
    "no such data": Mistake("pairs --out pairs.jsonl", 2, "no-such-folder", NO_DATA),
    "data without files": Mistake("pairs --out pairs.jsonl", 2, "data-empty", NO_FILES),
    "torn data": Mistake("pairs --out pairs.jsonl", 2, "data-torn/tatqa_dataset_", TORN),
    "samples that are not there": Mistake(
        "pairs --strategy mined --samples none*.jsonl --out p", 2, "none*.jsonl", SYNTHETIC
    ),
    # official scores
    "no gold file": Mistake("score --gold none.json --pred pred.json", 2, "none.json"),
    "no predictions": Mistake("score --gold gold.json --pred none.json", 2, "none.json"),
    "an empty gold file": Mistake("score --gold empty.json --pred pred.json", 2, "empty.json"),
    "torn predictions": Mistake("score --gold gold.json --pred torn.json", 2, "torn.json"),
    "predictions in a list": Mistake("score --gold gold.json --pred list.json", 2, "list.json"),
    "scores to nowhere": Mistake(
        "score --gold gold.json --pred pred.json --json no/scores.json", 2, "no/scores.json"
    ),
    "no samples to export": Mistake("export bench --out p.json", 2, "--log_samples", module=TASK),
    "samples that are none": Mistake(
        "export notes.jsonl --out p.json", 2, "notes.jsonl", module=TASK
    ),
    "scores over the predictions": Mistake(
        "score --gold gold.json --pred pred.json --json pred.json", 2, "pred.json is there already"
    ),
    "predictions over somebody's notes": Mistake(
        "export bench --out notes.jsonl", 2, "notes.jsonl is there already", module=TASK
    ),
    "pairs over a recipe": Mistake("pairs --out good.yaml", 2, "good.yaml is there already"),
    "a rating over a recipe": Mistake(
        "mtbench score --model-id m --data bench --json good.yaml", 2, "good.yaml is there"
    ),
    "a rating over a link to nothing": Mistake(
        "mtbench score --model-id m --data bench --json link", 2, "link is there"
    ),
    "a rating over a pipe": Mistake(
        "mtbench score --model-id m --data bench --json pipe", 2, "pipe is there"
    ),
    "answers over a link to nothing": Mistake(
        "mtbench answer --model tiny-tatqa --data demo --out link", 2, "--out link is a file"
    ),
    "data into a file": Mistake("generate a-file", 2, "a-file", module=TASK),
    "no data at all": Mistake("generate new-data --contexts 0", 2, "--contexts 0", module=TASK),
    "data over a link": Mistake("generate data-link", 2, "is there already", module=TASK),
    # comparing and reporting
    "a report of no folder": Mistake("report", 2, "--runs"),
    "a report of a folder that is not there": Mistake("report --runs none", 2, "none"),
    "a report of a folder without runs": Mistake("report --runs bench", 2, "no run is recorded"),
    "nothing to compare": Mistake("compare none.json none2.json", 2, "none.json"),
    "a folder without results": Mistake("compare bench data-empty", 2, "bench"),
    "a torn record": Mistake("compare torn.json torn.json", 2, "torn.json"),
    "a record that is not text": Mistake("compare binary.yaml binary.yaml", 2, "binary.yaml"),
    # sweeps: everything is checked before the first minute is spent
    "a sweep into no folder": Mistake("run good.yaml", 2, "--runs"),
    "a sweep of nothing": Mistake("run nothing.yaml --runs r", 2, "nothing.yaml"),
    "a sweep with a typo": Mistake("run typo.yaml --runs r", 2, "`beta`", SYNTHETIC),
    "a dry run with a typo": Mistake("run typo.yaml --runs r --dry-run", 2, "`beta`", SYNTHETIC),
    "a value that ends too soon": Mistake(
        "run good.yaml --runs r --set beta=[", 2, "--set beta=[: cannot read the value", SYNTHETIC
    ),
    "a value that is no date": Mistake(
        "run good.yaml --runs r --set beta=2020-13-45", 2, "month must be in 1..12", SYNTHETIC
    ),
    "a date for training that is none": Mistake(
        "train good.yaml --beta 2020-13-45", 2, "the value of --beta is not YAML"
    ),
    "a recipe with a date that is none": Mistake("run date.yaml --runs r", 2, "month must be"),
    "a name with line breaks": Mistake(
        "train no\nsuch\x1b.yaml", 2, "no such\N{REPLACEMENT CHARACTER}"
    ),
    "two recipes of one name": Mistake("run good.yaml sub/good.yaml --runs r", 2, "same"),
    "a base that is not there": Mistake("run missing.yaml --runs r", 2, "nowhere"),
    "a judge without a key": Mistake("run good.yaml --runs r --judge-model j", 2, "OPENAI_API_KEY"),
    "a sweep with a value that is none": Mistake(
        "run good.yaml --runs r --set beta=-1 --dry-run", 2, "beta: Input should be greater"
    ),
    "a field set twice": Mistake(
        "run good.yaml --runs r --set beta=1 --set beta=2", 2, "beta is set twice"
    ),
    "a list for a form": Mistake("run good.yaml --runs r --set form=[calc]", 2, "form: expected"),
    "a number for an adapter": Mistake(
        "run good.yaml --runs r --set init_adapter=3", 2, "init_adapter: expected a folder"
    ),
    "a number for samples": Mistake(
        "run good.yaml --runs r --set samples=3", 2, "samples: expected files"
    ),
    "a sweep of an adapter of another base": Mistake(
        "run good.yaml --runs r --set init_adapter=other --dry-run", 2, "trained on another base"
    ),
    "a sweep of a base cut short": Mistake(
        "run good.yaml --runs r --set model_name_or_path=base-short --dry-run", 2, "base-short: mod"
    ),
    "a sweep without a layer": Mistake(
        "run good.yaml --runs r --set lora_target_modules=qproj --dry-run", 2, "`q_proj`"
    ),
    "a sweep over a garbled run": Mistake(
        "run good.yaml --runs trained --dry-run", 2, "train.json is damaged"
    ),
    "a sweep on torn data": Mistake("run good.yaml --runs r --dry-run", 2, "data-torn/tatqa", TORN),
    "a sweep into an unset variable": Mistake("run good.yaml --runs ", 2, "found an empty text"),
    "a limit of a half": Mistake("run good.yaml --runs r --limit 1.5", 2, "found '1.5'"),
    "a bench without a judge": Mistake("run good.yaml --runs r --bench demo", 2, "--judge-model"),
    "a sweep with a question twice": Mistake(
        "run good.yaml --runs r --judge-model j --bench bench --dry-run",
        2,
        "twice",
        {**SYNTHETIC, **KEY},
    ),
    "a judge's address without a scheme": Mistake(
        "run good.yaml --runs r --judge-model j --bench demo --dry-run",
        2,
        "localhost:9 is no URL",
        {**SYNTHETIC, **KEY, "OPENAI_BASE_URL": "localhost:9"},
    ),
    "a bench with a typo": Mistake(
        "run good.yaml --runs r --judge-model j --bench dem", 2, "dem", {**SYNTHETIC, **KEY}
    ),
    "a limit of none": Mistake("run good.yaml --runs r --limit 0", 2, "--limit", SYNTHETIC),
    "a batch of none": Mistake("run good.yaml --runs r --batch-size 0", 2, "--batch-size"),
    "a sweep without data": Mistake("run good.yaml --runs r", 2, "no-such-folder", NO_DATA),
    "runs into a file": Mistake("run good.yaml --runs a-file", 2, "--runs: a-file is no folder"),
    "runs below a file": Mistake("run good.yaml --runs a-file/b/c", 2, "--runs: a-file is no f"),
    "its report into a file": Mistake("run good.yaml --runs r --report a-file", 2, "--report: a-f"),
    "its report into a run": Mistake(
        "run good.yaml --runs r --report ./r/good/new", 2, "is the folder of a run", SYNTHETIC
    ),
    "a run named as the report": Mistake(
        "run tatqa-report.yaml --runs r --dry-run", 2, "'tatqa-report'", SYNTHETIC
    ),
    "a run in somebody's folder": Mistake(
        "run good.yaml --runs taken --dry-run", 2, "taken/good: holds notes.txt", SYNTHETIC
    ),
    "a run over somebody's record": Mistake(
        "run good.yaml --runs recorded --dry-run", 2, "not a record of good", SYNTHETIC
    ),
    "a run through a link": Mistake(
        "run good.yaml --runs linked --dry-run", 2, "linked/good: holds judge_prompts", SYNTHETIC
    ),
    "a name of 300 letters": Mistake(f"train {'a' * 300}", 2, "File name too long"),
    "a sweep of 300 letters": Mistake(f"run {'a' * 300} --runs r", 2, "File name too long"),
    # 4-bit copies
    "a 4-bit copy over a folder": Mistake(
        "tiny-tatqa bench", 2, "bench exists", module="train.quantize"
    ),
    "a 4-bit copy of nothing": Mistake(
        "./nowhere copy", 2, "cannot load ./nowhere", module="train.quantize"
    ),
    "a 4-bit copy in somebody's folder": Mistake(
        "tiny-tatqa made", 2, "made.partial is in the way", module="train.quantize"
    ),
    # MT-Bench
    "MT-Bench without a key": Mistake("mtbench --model BASE", 2, "OPENAI_API_KEY"),
    "a bench that is not there": Mistake(
        "mtbench score --model-id m --data no", 2, "question.jsonl"
    ),
    "a question twice": Mistake("mtbench score --model-id m --data bench", 2, "twice"),
    "torn questions": Mistake("mtbench score --model-id m --data bench-torn", 2, "question.jsonl"),
    "a model's name that leads out": Mistake(
        "mtbench score --model-id ../m --data demo", 2, "../m"
    ),
    "no baseline": Mistake("mtbench pairwise --model m", 2, "--baseline"),
    "nothing to show": Mistake("mtbench show --data demo --model-id m", 2, "--question"),
    "a stage with a typo": Mistake("mtbench jugde", 2, "did you mean judge?"),
    # Ctrl-C
    "Ctrl-C while a recipe is read": Mistake(
        "train good.yaml", 1, "stopped", interrupted_in="pathlib.Path.read_text"
    ),
    "Ctrl-C in a sweep": Mistake(
        "run good.yaml --runs r", 1, "stopped", interrupted_in="pathlib.Path.read_text"
    ),
    "Ctrl-C while scoring": Mistake(
        "score --gold gold.json --pred pred.json",
        1,
        "stopped",
        interrupted_in="pathlib.Path.read_bytes",
    ),
}

HEAVIER = {
    "a judge that is not there": Mistake(
        "mtbench --model BASE --data demo", 2, "nothing answers at http://127.0.0.1:9", KEY
    ),
    "an adapter that is not there": Mistake(
        "mtbench answer --model BASE --adapter no-adapter --data demo --out o",
        2,
        "no-adapter",
        KEY,
    ),
    "a model that is not there": Mistake(
        "mtbench answer --model ./nowhere --data demo --out o", 2, "nowhere"
    ),
}


# ---- the user's folder ----


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def tensors() -> bytes:
    """A safetensors file with one number in it: the length of a header, the header, the number."""
    header = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return len(header).to_bytes(8, "little") + header + bytes(4)


def prepare(folder: Path) -> None:
    """A folder as somebody might have it: recipes, good and bad ones, data, benches, notes."""
    base = "model_name_or_path: tiny-tatqa\n"
    question = '{"question_id": 1, "category": "math", "turns": ["2 + 2?"]}\n'
    gold = [
        {
            "table": {"uid": "t", "table": [["", "2019"], ["Revenue", "5"]]},
            "paragraphs": [{"uid": "p", "order": 1, "text": "Revenue was 5."}],
            "questions": [
                {
                    "uid": "q", "order": 1, "question": "Revenue?", "answer": ["5"],
                    "derivation": "", "answer_type": "span", "answer_from": "table",
                    "rel_paragraphs": [], "req_comparison": False, "scale": "",
                }
            ],
        }
    ]  # fmt: skip
    llama = '{"model_type": "llama"}'
    lora = {
        "peft_type": "LORA", "r": 16, "lora_alpha": 32, "use_rslora": False, "use_dora": False,
        "base_model_name_or_path": "somebody/else",
    }  # fmt: skip
    write(
        folder,
        {
            "good.yaml": base,
            "sub/good.yaml": base,
            "tatqa-report.yaml": base,
            "typo.yaml": base + "betta: 0.1\n",
            "nobase.yaml": "beta: 0.1\n",
            "missing.yaml": "model_name_or_path: ./nowhere\n",
            "date.yaml": base + "beta: 2020-13-45\n",
            "torn.yaml": base + "beta: [1",
            "list.yaml": "- beta\n",
            "empty.yaml": "",
            "empty.json": "",
            "torn.json": '{"q": ["5"',
            "list.json": "[1]",
            "pred.json": '{"q": [["5"], ""]}',
            "gold.json": json.dumps(gold),
            "notes.jsonl": '{"note": 1}\n',
            "a-file": "mine",
            "adapter/adapter_config.json": "{}",
            "base-empty/config.json": "{}",
            "base-mute/config.json": llama,
            "base-short/config.json": llama,
            "base-short/tokenizer.json": "{}",
            "base-shards/config.json": llama,
            "base-shards/tokenizer.json": "{}",
            "base-shards/model.safetensors.index.json": '{"weight_map": {"x": "b.safetensors"}}',
            "base-torn/config.json": llama[:-1],
            "other/adapter_config.json": json.dumps(lora),
            "other-short/adapter_config.json": json.dumps(lora),
            "trained/good/train.json": "garbled",
            "bench/question.jsonl": question * 2,
            "bench/judge_prompts.jsonl": '{"name": "x"}\n',
            "bench-torn/question.jsonl": question + '{"question_id": 2, "tur',
            "data-empty/readme.txt": "nothing here",
            "taken/good/notes.txt": "mine",
            "recorded/good/record.json": "{}",
            "made.partial/config.json": "{}",
            "data-torn/tatqa_dataset_train.json": json.dumps(gold)[:-30],
            "data-torn/tatqa_dataset_dev.json": json.dumps(gold)[:-30],
            "data-torn/tatqa_dataset_test_gold.json": json.dumps(gold)[:-30],
        },
    )
    weights = tensors()
    for whole in ("base-mute/model", "base-torn/model", "other/adapter_model"):
        (folder / f"{whole}.safetensors").write_bytes(weights)
    for short in ("base-short/model", "other-short/adapter_model"):
        (folder / f"{short}.safetensors").write_bytes(weights[:-1])
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00beta")
    (folder / "link").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    (folder / "linked").mkdir()
    (folder / "linked" / "good").symlink_to(folder / "bench")
    (folder / "data-link").mkdir()
    (folder / "data-link" / "tatqa_dataset_dev.json").symlink_to("nowhere")


def contents(folder: Path) -> dict[str, str]:
    """A hash of every file but locks, which stay."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".lock":
            name = str(path.relative_to(folder))
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


# ---- the process in which the commands run ----


@contextlib.contextmanager
def interrupted(where: str) -> Any:
    """Ctrl-C comes when the named function is called."""
    if not where:
        yield
        return
    with mock.patch(where, side_effect=KeyboardInterrupt):
        yield


class NoWork(subprocess.Popen[Any]):
    """A sweep that starts a stage has not refused the call; only checks may run."""

    def __init__(self, args: Any, *rest: Any, **options: Any) -> None:
        assert args[0] != sys.executable or "--check" in args, f"work was started: {args}"
        super().__init__(args, *rest, **options)


def call(mistake: Mistake) -> dict[str, Any]:
    """Run one command in this process; what it printed, its exit code, and what it imported."""
    import importlib

    known = set(sys.modules)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as around:
        around.enter_context(mock.patch.dict(os.environ, mistake.environment))
        around.enter_context(mock.patch("subprocess.Popen", NoWork))
        around.enter_context(contextlib.redirect_stdout(out))
        around.enter_context(contextlib.redirect_stderr(err))
        try:
            main = importlib.import_module(mistake.module).main
            with interrupted(mistake.interrupted_in):
                # the base's path may hold spaces
                words = [str(BASE) if word == "BASE" else word for word in mistake.call.split(" ")]
                code = main(words)
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            code = "traceback"
            traceback.print_exc(file=err)
    heavy = [name for name in HEAVY if name in sys.modules and name not in known]
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "heavy": heavy}


def serve() -> None:
    """Rows from standard input, their results to standard output."""
    results = {}
    for name, fields in json.load(sys.stdin).items():
        before = contents(Path())
        results[name] = call(Mistake(**fields))
        after = contents(Path())
        changed = [path for path in after | before if after.get(path) != before.get(path)]
        results[name]["changed"] = sorted(changed)
        for path in after.keys() - before.keys():
            Path(path).unlink()
    sys.stdout.write(json.dumps(results))


def run_all(rows: dict[str, Mistake], folder: Path) -> dict[str, Any]:
    prepare(folder)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "TATQA_DATA")
    }
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"}
    environment["XDG_CACHE_HOME"] = str(folder.with_name(f"{folder.name}-cache"))
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps({name: asdict(row) for name, row in rows.items()}),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_all(LIGHT, tmp_path_factory.mktemp("light"))


@pytest.fixture(scope="module")
def heavier(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_all(HEAVIER, tmp_path_factory.mktemp("heavier"))


# ---- the contract ----


def error_lines(text: str) -> list[str]:
    """Standard error without progress, and without the usage that argparse puts first."""
    lines = [line for line in text.splitlines() if line.strip() and "%|" not in line]
    lines = [line for line in lines if not line.startswith("loading libraries, then ")]
    if lines and lines[0].startswith("usage:"):
        return [line for line in lines if ": error: " in line]
    return lines


def check(mistake: Mistake, result: dict[str, Any]) -> None:
    assert "Traceback" not in result["err"]
    assert result["code"] == mistake.code, result["err"]
    lines = error_lines(result["err"])
    assert len(lines) == 1
    assert "error: " in lines[0]
    assert mistake.says in lines[0]
    assert len(lines[0]) < 600
    assert result["changed"] == []


@pytest.mark.parametrize("name", LIGHT)
def test_a_mistake_is_one_line_at_once(name: str, light: dict[str, Any]) -> None:
    check(LIGHT[name], light[name])
    assert light[name]["heavy"] == []


@pytest.mark.parametrize("name", HEAVIER)
def test_a_mistake_that_only_the_libraries_see(name: str, heavier: dict[str, Any]) -> None:
    check(HEAVIER[name], heavier[name])


if __name__ == "__main__":
    serve()

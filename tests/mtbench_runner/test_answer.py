"""Answers of a real small model: template, temperatures, resumption, adapters, endpoints."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mtbench_runner import bench as benches
from mtbench_runner import store
from mtbench_runner.__main__ import main
from mtbench_runner.answer import converse
from mtbench_runner.local import Candidate, LocalModel, decode_in_parts
from mtbench_runner.outcome import Outcome
from mtbench_runner.thinking import strip_thinking

GREEDY = {
    3,
    4,
    5,
    6,
}  # questions of the demo bench whose category FastChat answers at temperature 0


def answer(bench: Path, model: Path, *more: str, model_id: str = "tiny") -> int:
    arguments = [
        "--data",
        str(bench),
        "--model",
        str(model),
        "--model-id",
        model_id,
        "--max-new-tokens",
        "24",
    ]
    return main(["answer", *arguments, *more])


def turns(bench: Path, model_id: str = "tiny") -> dict[int, list[str]]:
    rows = store.read(bench / "model_answer" / f"{model_id}.jsonl")
    return {row["question_id"]: row["choices"][0]["turns"] for row in rows}


@pytest.fixture(scope="module")
def talkative(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights and no end token: it has something to say to everything."""
    from transformers import AutoTokenizer, GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    shape = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    config = Qwen3Config(
        **shape,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=len(tokenizer),
        initializer_range=0.3,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(pad_token_id=0)
    folder = tmp_path_factory.mktemp("models") / "talkative"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def copy_tokenizer(source: Path, target: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (target / name).write_bytes((source / name).read_bytes())


def test_answers_are_whole_reproducible_and_greedy_ones_independent_of_the_batch(
    talkative: Path, bench: Path
) -> None:
    assert answer(bench, talkative, model_id="all") == 0
    assert answer(bench, talkative, "--batch-size", "3", model_id="threes") == 0
    assert answer(bench, talkative, "--batch-size", "3", model_id="again") == 0
    everything, threes = turns(bench, "all"), turns(bench, "threes")
    assert all(len(said) == 2 and all(said) for said in everything.values())
    assert len(everything) == 8
    assert {q: said for q, said in threes.items() if q in GREEDY} == {
        q: everything[q] for q in GREEDY
    }
    assert threes == turns(bench, "again")
    assert {q for q in everything if everything[q] != threes[q]} <= set(everything) - GREEDY


def test_greedy_answers_are_what_transformers_says_one_question_at_a_time(
    talkative: Path, bench: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert answer(bench, talkative) == 0
    tokenizer = AutoTokenizer.from_pretrained(talkative)
    model = AutoModelForCausalLM.from_pretrained(talkative, dtype=torch.float32)
    for question in benches.load(str(bench)).questions:
        if question["question_id"] in GREEDY:
            messages: list[dict[str, str]] = []
            for asked, said in zip(
                question["turns"], turns(bench)[question["question_id"]], strict=True
            ):
                messages.append({"role": "user", "content": asked})
                ids = tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, return_tensors="pt"
                )
                new = model.generate(**ids, max_new_tokens=24, do_sample=False)[
                    0, ids["input_ids"].shape[1] :
                ]
                assert tokenizer.decode(new, skip_special_tokens=True).strip() == said
                messages.append({"role": "assistant", "content": said})


def test_an_answered_bench_loads_no_model_and_a_changed_one_only_what_changed(
    tiny_base: Path, bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answer(bench, tiny_base) == 0
    first = (bench / "model_answer" / "tiny.jsonl").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("mtbench_runner.answer.LocalModel", None)
        assert answer(bench, tiny_base) == 0
    assert (bench / "model_answer" / "tiny.jsonl").read_bytes() == first
    questions = bench / "question.jsonl"
    questions.write_text(questions.read_text().replace("Why does ice float", "Why would ice float"))
    assert answer(bench, tiny_base) == 0
    rows = store.read(bench / "model_answer" / "tiny.jsonl")
    assert [row["question_id"] for row in rows[8:]] == [7]
    assert answer(bench, tiny_base, "--max-new-tokens", "23") == 0
    assert len(store.read(bench / "model_answer" / "tiny.jsonl")) == 17
    moved = shutil.copytree(tiny_base, bench / "elsewhere")
    assert answer(bench, moved, "--max-new-tokens", "23") == 0
    assert len(store.read(bench / "model_answer" / "tiny.jsonl")) == 17  # the same files elsewhere
    settings = moved / "generation_config.json"
    settings.write_text(settings.read_text().replace("{", '{"top_k": 3,', 1))
    assert answer(bench, moved, "--max-new-tokens", "23") == 0
    assert len(store.read(bench / "model_answer" / "tiny.jsonl")) == 25


def test_kill_9_while_answering(talkative: Path, bench: Path) -> None:
    """Finished answers stay; the sampled ones of the rest are those of an uninterrupted run."""
    more = ["--batch-size", "2", "--max-new-tokens", "80"]
    assert answer(bench, talkative, *more, model_id="whole") == 0
    path = bench / "model_answer" / "tiny.jsonl"
    die_at_the_third_row = (
        "import os, signal, sys\n"
        "from mtbench_runner import store\n"
        "from mtbench_runner.__main__ import main\n"
        "append = store.append\n"
        "def die(path, row):\n"
        "    append(path, row)\n"
        "    if len(store.read(path)) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.append = die\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", die_at_the_third_row, "answer", "--data", str(bench)]
    command += ["--model", str(talkative), "--model-id", "tiny", *more]
    done = subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == -signal.SIGKILL
    kept = store.read(path)
    assert len(kept) == 3
    assert answer(bench, talkative, *more) == 0
    rows = store.read(path)
    assert rows[: len(kept)] == kept
    assert len(rows) == 8
    assert turns(bench) == turns(bench, "whole")


def test_an_adapter_answers_differently_from_its_base_with_the_same_template(
    talkative: Path, bench: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(talkative)
    model = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    model.save_pretrained(tmp_path / "adapter")
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    copy_tokenizer(talkative, tmp_path / "merged")
    assert answer(bench, talkative, model_id="base") == 0
    assert answer(bench, talkative, "--adapter", str(tmp_path / "adapter"), model_id="adapter") == 0
    assert answer(bench, tmp_path / "merged", model_id="merged") == 0
    assert turns(bench, "adapter") != turns(bench, "base")
    assert all(all(said) for said in turns(bench, "merged").values())


def test_a_4_bit_checkpoint_answers(talkative: Path, bench: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    )
    model = AutoModelForCausalLM.from_pretrained(
        talkative, quantization_config=config, dtype=torch.float32
    )
    model.save_pretrained(tmp_path / "nf4")
    copy_tokenizer(talkative, tmp_path / "nf4")
    assert answer(bench, tmp_path / "nf4") == 0
    assert len(turns(bench)) == 8


@pytest.mark.slow
def test_several_processes_share_the_questions(talkative: Path, bench: Path) -> None:
    assert answer(bench, talkative, model_id="alone") == 0
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    command = [
        *launch,
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "-m",
        "mtbench_runner",
        "answer",
    ]
    arguments = [
        "--data",
        str(bench),
        "--model",
        str(talkative),
        "--model-id",
        "tiny",
        "--max-new-tokens",
        "24",
    ]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(store.read(bench / "model_answer" / "tiny.jsonl")) == 8
    assert {q: turns(bench)[q] for q in GREEDY} == {q: turns(bench, "alone")[q] for q in GREEDY}


def test_an_endpoint_answers(judge: Any, bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSWERS_API_KEY", "other-key")
    judge.reply = lambda request: f"<think>hm</think>I say {len(request['messages'])}"
    arguments = ["answer", "--data", str(bench), "--model", "served", "--answers-from", judge.url]
    assert main(arguments) == 0
    assert turns(bench, "served") == {q: ["I say 1", "I say 3"] for q in range(1, 9)}
    row = store.read(bench / "model_answer" / "served.jsonl")[0]
    assert row["choices"][0]["turns_with_thinking"] == [
        "<think>hm</think>I say 1",
        "<think>hm</think>I say 3",
    ]
    assert len(judge.requests) == 16
    asked = {r["messages"][0]["content"]: r for r in judge.requests}
    assert {r["temperature"] for r in judge.requests} == {0.0, 0.1, 0.7}
    assert next(r for text, r in asked.items() if "garden party" in text)["temperature"] == 0.7
    assert next(r for text, r in asked.items() if "ice float" in text)["temperature"] == 0.1
    assert all(r["max_tokens"] == 1024 and r["seed"] == 0 for r in judge.requests)
    assert all(r["chat_template_kwargs"] == {"enable_thinking": False} for r in judge.requests)
    assert not any(
        "think" in message["content"] for r in judge.requests for message in r["messages"]
    )
    assert main(arguments) == 0
    assert len(judge.requests) == 16


def test_an_endpoint_that_fails_leaves_the_rest_for_the_next_run(
    judge: Any, bench: Path, capsys: Any
) -> None:
    arguments = ["answer", "--data", str(bench), "--model", "served", "--answers-from", judge.url]
    judge.fault = lambda number, request: (
        "refuse-x" if "pens" in request["messages"][0]["content"] else None
    )
    assert main(arguments) == 1
    assert "error: 1 of 8 questions have no answer" in capsys.readouterr().err
    assert set(turns(bench, "served")) == set(range(1, 9)) - {4}
    judge.fault = lambda number, request: (
        "refuse-chat_template_kwargs" if "chat_template_kwargs" in request else None
    )
    assert main(arguments) == 0
    assert set(turns(bench, "served")) == set(range(1, 9))


class Parrot:
    """Thinks, then says how many messages it has seen."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def reply(self, conversations: Any, temperatures: list[float]) -> list[Outcome]:
        self.seen += conversations
        texts = [f"<think>secret {len(c)}</think>\n\nReply {len(c)}" for c in conversations]
        return [Outcome("text", text) for text in texts]


def test_thinking_is_kept_out_of_turn_2() -> None:
    parrot = Parrot()
    said = converse(parrot.reply, [{"question_id": 1, "category": "stem", "turns": ["a", "b"]}])
    texts = [[outcome.text for outcome in turns] for turns in said]
    assert texts == [["<think>secret 1</think>\n\nReply 1", "<think>secret 3</think>\n\nReply 3"]]
    assert parrot.seen[1] == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "Reply 1"},
        {"role": "user", "content": "b"},
    ]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<think>a</think> b ", "b"),
        ("\n<think>\n\n</think>\n\nb", "b"),
        ("a</think>b", "b"),  # a template that opens the block in the prompt
        ("<think>never finished", ""),
        ("<Think>[[2]]</think>[[8]]", "[[8]]"),
        ("<seed:think>[[2]]</seed:think>[[8]]", "[[8]]"),
        ("<reasoning>[[2]]</reasoning>[[8]]", "[[8]]"),
        ("\n<reflection>[[2]]", ""),
        ("◁think▷[[2]]◁/think▷[[8]]", "[[8]]"),
        ("[[2]]◁/think▷[[8]]", "[[8]]"),
        (
            "<|channel|>analysis<|message|>[[2]]<|end|><|start|>assistant"
            "<|channel|>final<|message|>[[8]]",
            "[[8]]",
        ),
        ("<|channel|>analysis<|message|>[[2]]", ""),
        ("<antthinking>[[2]]</antthinking>[[8]]", "[[8]]"),
        ("<|inner_prefix|>[[2]]<|inner_suffix|>[[8]]", "[[8]]"),
        ("<|START_THINKING|>[[2]]<|END_THINKING|>[[8]]", "[[8]]"),
        ("<unused94>thought\n[[2]]", ""),
        ("[Reasoning] I weigh both.", "[Reasoning] I weigh both."),
        ("plain", "plain"),
        ("HTML has no <think> tag.", "HTML has no <think> tag."),
        ("Write <think>x</think> for thoughts.", "Write <think>x</think> for thoughts."),
    ],
)
def test_strip_thinking(reply: str, answer: str) -> None:
    assert strip_thinking(reply) == answer


def limited(memory: int, log: list[int]) -> Callable[[list[int]], list[list[int]]]:
    def decode(rows: list[int]) -> list[list[int]]:
        log.append(len(rows))
        if len(rows) > memory:
            raise torch.OutOfMemoryError("out of memory")
        return [[row] for row in rows]

    return decode


def test_a_batch_is_halved_when_memory_runs_out_and_nothing_is_lost() -> None:
    log: list[int] = []
    assert decode_in_parts(limited(3, log), list(range(20)), 16) == [[row] for row in range(20)]
    assert log == [16, 8, 4, 2, *[2] * 9]
    with pytest.raises(store.InputError, match="one conversation alone does not fit"):
        decode_in_parts(limited(0, log), [1, 2], 8)


def test_what_fits_into_memory_depends_on_the_length(tiny_base: Path) -> None:
    short = LocalModel(Candidate(str(tiny_base), max_new_tokens=10))
    assert short.rows_that_fit(10) > short.rows_that_fit(100_000) >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere/at-all"], "cannot load nowhere/at-all"),
        (["--model", "BASE", "--adapter", "no-such-folder"], "cannot load no-such-folder"),
        (
            ["--model", "nowhere/at-all", "--adapter", "no-such-folder"],
            "cannot load nowhere/at-all",
        ),
    ],
)
def test_a_model_that_is_not_there(
    arguments: list[str], message: str, tiny_base: Path, bench: Path, capsys: Any
) -> None:
    given = [str(tiny_base) if a == "BASE" else a for a in arguments]
    assert main(["answer", "--data", str(bench), *given]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {message}")
    assert not [file for file in (bench / "model_answer").glob("*.jsonl") if file.stem != "m"]


def test_a_tokenizer_without_a_chat_template(
    talkative: Path, bench: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for file in talkative.iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).write_bytes(file.read_bytes())
    assert answer(bench, folder) == 2
    assert "has no chat template" in capsys.readouterr().err

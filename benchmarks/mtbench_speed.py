"""How fast a model answers MT-Bench: 80 questions, 2 turns, 1,024 new tokens each.

    python benchmarks/mtbench_speed.py --device cuda --json speed.json   # Qwen3-1.7B's shape, 4 min
    python benchmarks/mtbench_speed.py --device cpu --tiny               # does it run at all
    python benchmarks/mtbench_speed.py --model MODEL --data data/mt_bench --json speed.json

Five ways of decoding with random weights, whose replies never end early, so that every way decodes
160 x 1,024 tokens. `graphs` is what mtbench_runner uses on a GPU and is measured whole; the others
are measured for some steps at the real lengths and extrapolated. Each way has its own process; all
load first, then they run one after the other.

With --model a real model answers a real bench through the runner's own code, and its replies end
when they end; loading is not timed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

# Tokens of MT-Bench's 80 prompts at turn 1, and what turn 2 adds apart from the reply, by Qwen3's
# tokenizer and template
TURN_1 = [
    34, 58, 69, 51, 34, 42, 44, 42, 53, 108, 44, 62, 84, 103, 105, 72, 85, 52, 52, 63, 50, 48, 34,
    31, 212, 84, 35, 30,
    64, 147, 47, 62, 81, 34, 88, 33, 32, 42, 80, 40, 38, 26, 39, 191, 34, 40, 35, 51, 45, 30, 184,
    211, 368, 221, 170,
    273, 218, 345, 157, 354, 38, 55, 54, 31, 69, 50, 74, 48, 44, 32, 40, 26, 38, 67, 34, 33, 24, 27,
    24, 29,
]  # fmt: skip
TURN_2 = [
    24, 21, 24, 28, 33, 32, 24, 29, 59, 24, 21, 26, 27, 34, 18, 30, 25, 27, 18, 30, 34, 28, 20, 34,
    20, 31, 74, 23, 25,
    60, 22, 44, 31, 33, 30, 15, 22, 22, 49, 21, 16, 53, 23, 184, 19, 20, 21, 25, 26, 30, 26, 27, 34,
    23, 22, 28, 40, 32,
    34, 31, 23, 28, 42, 22, 17, 20, 31, 39, 27, 25, 20, 20, 20, 23, 23, 23, 220, 37, 32, 31,
]  # fmt: skip
TEMPERATURES = (
    [0.7] * 20 + [0.0] * 40 + [0.1] * 20
)  # writing, roleplay; reasoning, math, coding, extraction; the rest
QWEN3_1_7B = {
    "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
TINY = QWEN3_1_7B | {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "vocab_size": 999,
}
WAYS = {
    "graphs": "mtbench_runner: one batch a turn, CUDA graphs",
    "loop": "FastChat's loop: one question at a time",
    "plain": "generate, one batch a turn",
    "continuous": "generate_batch (continuous batching)",
    "compiled": "generate, static cache, torch.compile",
}


class Bench:
    """The model and what the ways share. `new` is the number of new tokens of a whole reply."""

    def __init__(self, device: str, tiny: bool) -> None:
        import torch
        from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

        self.device = device
        self.new = 96 if tiny else 1024
        self.part = 8 if tiny else 96  # new tokens of a run that is extrapolated from
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float32 if tiny else torch.bfloat16)
        with torch.device(device):
            config = Qwen3Config(**(TINY if tiny else QWEN3_1_7B))
            self.model = Qwen3ForCausalLM(config).eval()
        torch.set_default_dtype(torch.float32)
        # without a token that ends a reply: none ends early
        self.model.generation_config = GenerationConfig(pad_token_id=0, top_k=20, top_p=0.95)

    def prompts(self, turn: int, rows: int = 80) -> tuple[Any, Any]:
        """Left-padded prompts of a turn at their real lengths, and their mask [rows, length]."""
        import torch

        lengths = []
        for first, added in zip(TURN_1[:rows], TURN_2[:rows], strict=True):
            lengths.append(first if turn == 1 else first + self.new + added)
        mask = torch.zeros(rows, max(lengths), dtype=torch.long, device=self.device)
        for row, length in enumerate(lengths):
            mask[row, -length:] = 1
        vocabulary = self.model.config.vocab_size
        ids = torch.randint(1, vocabulary, mask.shape, device=self.device)
        return ids * mask, mask

    def timed(self, work: Any) -> float:
        """Seconds that the work takes, to its end on the device."""
        import torch

        started = time.perf_counter()
        work()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def per_step(self, turn: int, rows: int = 80, **how: Any) -> tuple[float, float]:
        """(seconds of prefill, seconds of a step) of `generate`, by a long and a short run."""
        ids, mask = self.prompts(turn, rows)

        def run(steps: int) -> float:
            end = ids.shape[1] + steps

            def stop(seen: Any, scores: Any) -> Any:
                return seen.new_full(seen.shape[:1], int(seen.shape[1] >= end)).bool()

            settings = {
                "max_new_tokens": self.new,
                "do_sample": False,
                "stopping_criteria": [stop],
                **how,
            }
            return self.timed(
                lambda: self.model.generate(input_ids=ids, attention_mask=mask, **settings)
            )

        run(2)
        short, long = run(2), run(self.part)
        step = (long - short) / (self.part - 2)
        return short - 2 * step, step


def graphs(bench: Bench) -> dict[str, Any]:
    """The runner's own way, both turns whole."""
    from mtbench_runner.decode import Batch, decode

    agrees = same_as_generate(bench.device)
    batches = [Batch(*bench.prompts(turn), TEMPERATURES, bench.new) for turn in (1, 2)]
    turns = [bench.timed(partial(decode, bench.model, batch)) for batch in batches]
    return {
        "seconds": sum(turns),
        "measured": "whole",
        "turns": turns,
        "tokens_equal_generate_in_fp32": agrees,
    }


def same_as_generate(device: str) -> bool:
    """Whether this loop's 600 greedy tokens of a small fp32 model are those of `generate`."""
    from mtbench_runner.decode import Batch, decode, plain

    small = Bench(device, tiny=True)
    ids, mask = small.prompts(1)
    batch = Batch(ids[:16], mask[:16], [0.0] * 16, 600)
    return bool((decode(small.model, batch) == plain(small.model, batch)).all())


def loop(bench: Bench) -> dict[str, Any]:
    """One question at a time, by the time of a step at batch 1."""
    _, step = bench.per_step(turn=1, rows=1)
    return {"seconds": step * 160 * bench.new, "measured": f"{bench.part} steps at batch 1"}


def plain(bench: Bench) -> dict[str, Any]:
    """`generate`, each turn one batch."""
    seconds = 0.0
    for turn in (1, 2):
        prefill, step = bench.per_step(turn)
        seconds += prefill + step * bench.new
    return {"seconds": seconds, "measured": f"{bench.part} steps a turn"}


def compiled(bench: Bench) -> dict[str, Any]:
    """`generate` with a static cache, which compiles its forward pass."""
    first = []

    def cold() -> None:
        first.append(bench.per_step(1, cache_implementation="static"))

    total = bench.timed(cold)
    prefill, step = first[0]
    compiling = total - 3 * prefill - (bench.part + 4) * step
    return {
        "seconds": 2 * (prefill + bench.new * step) + compiling,
        "measured": f"{bench.part} steps of turn 1, counted twice, "
        f"and {compiling:.0f} s of compiling",
    }


def continuous(bench: Bench) -> dict[str, Any]:
    """transformers' continuous batching, on turn 1."""
    ids, mask = bench.prompts(1)
    rows = []
    for row, own in zip(ids.cpu(), mask.cpu(), strict=True):
        rows.append(row[own.bool()].tolist())
    new = 2 * bench.part
    done: dict[str, Any] = {}

    def work() -> None:
        done.update(bench.model.generate_batch(rows, max_new_tokens=new, do_sample=False))

    seconds = bench.timed(work)
    failed = len(rows)
    for result in done.values():
        if not result.error and len(result.generated_tokens) == new:
            failed -= 1
    return {
        "seconds": seconds * 2 * bench.new / new,
        "measured": f"{new} steps of turn 1, counted twice",
        "failed": failed,
    }


def real(model: str, data: str, longest: int) -> dict[str, Any]:
    """All answers of a model to a bench: seconds from the first prompt to the last reply."""
    import torch

    from mtbench_runner import bench
    from mtbench_runner.answer import converse
    from mtbench_runner.local import Candidate, LocalModel

    started = time.perf_counter()
    candidate = LocalModel(Candidate(model, max_new_tokens=longest))
    loaded = time.perf_counter()
    replies = []
    for said in converse(candidate.reply, bench.load(data).questions):
        replies += said
    seconds = time.perf_counter() - loaded
    tokens = cut = 0
    for reply in replies:
        tokens += reply.usage["completion"] or 0
        cut += reply.finish == "length"
    on_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "torch": torch.__version__,
        "model": Path(model).name,
        "replies": len(replies),
        "tokens": tokens,
        "cut_at_the_limit": cut,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "seconds_of_loading": loaded - started,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
    }


MEASURES = {
    "loop": loop,
    "plain": plain,
    "graphs": graphs,
    "compiled": compiled,
    "continuous": continuous,
}


def worker(way: str, device: str, tiny: bool) -> None:
    """Load, say so, wait for the word, measure, and print the result as JSON."""
    bench = Bench(device, tiny)
    print("ready", flush=True)
    sys.stdin.readline()
    result = MEASURES[way](bench)
    if device == "cuda":
        import torch

        result["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps(result), flush=True)


def measure(process: "subprocess.Popen[str]", seconds: float) -> dict[str, Any]:
    """What a worker that is loaded measures; why it failed, if it did."""
    try:
        output, errors = process.communicate("go\n", timeout=max(seconds, 1))
        return json.loads(output.splitlines()[-1])
    except subprocess.TimeoutExpired:
        process.kill()
        return {"failed": f"not done within {seconds:.0f} s"}
    except (IndexError, json.JSONDecodeError):
        said = errors.strip().splitlines() or ["no output"]
        return {"failed": said[-1][:300]}


def main() -> None:
    """Time the ways of decoding one after the other, or a real model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="a toy model and short replies")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--limit", type=float, default=225, help="seconds for all of it")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", help="a real model's folder, in place of random weights")
    parser.add_argument("--max-new-tokens", type=int, default=1024, help="of the real model")
    parser.add_argument("--data", default="demo", help="bench that it answers")
    parser.add_argument("--worker", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker, args.device, args.tiny)
    if args.model:
        result = real(args.model, args.data, args.max_new_tokens)
        print(json.dumps(result, indent=1))
        if args.json:
            args.json.write_text(json.dumps(result, indent=1) + "\n")
        return None
    started = time.perf_counter()
    processes = {way: start(way, args) for way in args.ways}
    for process in processes.values():
        process.stdout.readline()  # type: ignore[union-attr]
    print(f"loaded in {time.perf_counter() - started:.0f} s", flush=True)
    results = {}
    for way, process in processes.items():
        left = args.limit - (time.perf_counter() - started)
        results[way] = measure(process, min(100, left))
        print(way, json.dumps(results[way]), flush=True)
    return report(results, args)


def start(way: str, args: argparse.Namespace) -> "subprocess.Popen[str]":
    """A worker that loads, with the packages of this checkout before any that are installed."""
    command = [sys.executable, __file__, "--device", args.device, "--worker", way]
    if args.tiny:
        command.append("--tiny")
    path = str(Path(__file__).resolve().parents[1])
    if os.environ.get("PYTHONPATH"):
        path += os.pathsep + os.environ["PYTHONPATH"]
    return subprocess.Popen(
        command,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def report(results: dict[str, Any], args: argparse.Namespace) -> None:
    """Print the results as a table, and write them to --json."""
    import torch
    import transformers

    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    shape = "toy model" if args.tiny else "Qwen3-1.7B shape, bf16"
    tokens = 160 * (96 if args.tiny else 1024)
    print(f"\n160 replies, {tokens} tokens, {shape}, {name}\n")
    print("| way | seconds | tokens/s | measured |\n|---|---|---|---|")
    for way, result in results.items():
        seconds = result.get("seconds")
        figures = f"- | - | {result}"
        if seconds:
            figures = f"{seconds:,.1f} | {tokens / seconds:,.0f} | {result['measured']}"
        print(f"| {WAYS[way]} | {figures} |")
    record = {
        "device": name,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tiny": args.tiny,
        "tokens": tokens,
        "ways": results,
    }
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

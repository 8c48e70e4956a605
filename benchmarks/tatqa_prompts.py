"""Which wording of the TAT-QA prompt serves small models best: a table of EM, parsed and em_strict.

    python benchmarks/tatqa_prompts.py --model NAME --base-url http://127.0.0.1:8000/v1 --out FOLDER
    python benchmarks/tatqa_prompts.py --model FOLDER --contexts 8 --out FOLDER    (a local model,
    on the CPU or GPU)

The questions are those of whole contexts of the *training* split, drawn by --seed: wordings are
never chosen on dev. They are asked zero-shot through the model's chat template, greedily, with the
task's own stop strings. Wordings are those of tatqa_wordings.yaml, or of another file of that
shape. FOLDER gets table.md, table.json and all replies; a wording whose replies are there is not
asked again.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import yaml

from tatqa_task import answer, data, metric, prompt, task_files
from tatqa_task.types import FORMS, Context, Form, Question

Ask = Callable[[Sequence[str], Form], list[str]]
WORDINGS = Path(__file__).with_name("tatqa_wordings.yaml")
AT_ONCE = 128  # requests in flight


class Asked(NamedTuple):
    """A question with the context it is about."""

    context: Context
    question: Question


def main() -> None:
    """Ask every wording; print and keep the table."""
    arguments = parser().parse_args()
    asked = draw(arguments.contexts, arguments.seed)
    ask = server(arguments) if arguments.base_url else local(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    wordings = yaml.safe_load(arguments.wordings.read_text(encoding="utf-8"))
    for form in arguments.forms:
        for name, wording in wordings[form].items():
            if arguments.names and name not in arguments.names:
                continue
            replies, seconds = replied(arguments.out, form, name, wording, asked, ask)
            rows.append(measured(form, name, asked, replies) | {"seconds": seconds})
            print(line(rows[-1].values()), flush=True)
    text = table(rows, arguments.model, asked)
    (arguments.out / "table.md").write_text(text, encoding="utf-8")
    (arguments.out / "table.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"\n{text}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--model", required=True, help="a served model's name, or a local folder")
    made.add_argument("--base-url", help="of an OpenAI-compatible server, such as vLLM")
    made.add_argument("--api-key", default="none", help="what the server asks for")
    made.add_argument("--wordings", type=Path, default=WORDINGS, help="YAML: form, name, wording")
    made.add_argument("--forms", nargs="+", default=["direct", "calc"], choices=FORMS)
    made.add_argument("--names", nargs="+", help="only these wordings")
    made.add_argument("--contexts", type=int, default=60, help="training contexts (default 60)")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--dtype", default="float32", help="of a local model (default float32)")
    made.add_argument("--max-tokens", type=int, help="of a reply (default: the task's own)")
    made.add_argument("--out", type=Path, required=True, help="folder for table and replies")
    return made


def draw(n_contexts: int, seed: int) -> list[Asked]:
    """The questions of some training contexts."""
    contexts = data.load("train")
    asked = []
    for context in Random(seed).sample(contexts, min(n_contexts, len(contexts))):
        for question in context.questions:
            asked.append(Asked(context, question))
    return asked


# --- asking ---


def server(arguments: argparse.Namespace) -> Ask:
    """Asks an OpenAI-compatible server, many at once."""
    from openai import OpenAI

    client = OpenAI(base_url=arguments.base_url, api_key=arguments.api_key, max_retries=5)

    def one(text: str, form: Form) -> str:
        done = client.chat.completions.create(
            model=arguments.model,
            messages=[{"role": "user", "content": text}],
            temperature=0,
            max_tokens=arguments.max_tokens or task_files.MAX_GEN_TOKS[form],
            stop=list(task_files.UNTIL[form]),
        )
        return done.choices[0].message.content or ""

    def ask(texts: Sequence[str], form: Form) -> list[str]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda text: one(text, form), texts))

    return ask


def local(arguments: argparse.Namespace) -> Ask:
    """Asks a local model by transformers; what a prompt shares with the one before is kept."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=arguments.dtype).to(device)
    model.eval()

    def token_ids(text: str) -> list[int]:
        turn = [{"role": "user", "content": text}]
        options = {"add_generation_prompt": True, "enable_thinking": False, "return_dict": False}
        ids: list[int] = tokenizer.apply_chat_template(turn, **options)
        return ids

    @torch.inference_mode()
    def ask(texts: Sequence[str], form: Form) -> list[str]:
        replies = []
        before: list[int] = []
        cache = DynamicCache()
        for text in texts:
            ids = token_ids(text)
            shared = min(common_prefix(before, ids), len(ids) - 1)
            if len(before) > shared:
                cache.crop(shared - len(before))  # so many are forgotten
            made = model.generate(
                torch.tensor([ids], device=device),
                past_key_values=cache,
                do_sample=False,
                max_new_tokens=arguments.max_tokens or task_files.MAX_GEN_TOKS[form],
                pad_token_id=tokenizer.eos_token_id,
            )
            before = made[0].tolist()[:-1]
            reply = tokenizer.decode(made[0, len(ids) :], skip_special_tokens=True)
            replies.append(cut(reply, task_files.UNTIL[form]))
        return replies

    return ask


def common_prefix(first: list[int], second: list[int]) -> int:
    """How many items two lists begin with alike."""
    for i, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return i
    return min(len(first), len(second))


def cut(reply: str, stops: Sequence[str]) -> str:
    """The reply up to its first stop string, as a server ends it."""
    for stop in stops:
        reply = reply.partition(stop)[0]
    return reply


def replied(
    folder: Path, form: Form, name: str, wording: dict[str, str], asked: list[Asked], ask: Ask
) -> tuple[list[str], float]:
    """The replies to one wording, and the seconds they took; kept in the folder."""
    path = folder / f"replies_{form}_{name}.json"
    worded = prompt.Wording(**wording)
    texts = [prompt.worded(worded, context, question) for context, question in asked]
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["prompts"] == texts:
            return kept["replies"], kept["seconds"]
    start = time.perf_counter()
    replies = ask(texts, form)
    seconds = round(time.perf_counter() - start, 1)
    kept = {"seconds": seconds, "replies": replies, "prompts": texts}
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False), encoding="utf-8")
    return replies, seconds


# --- scoring ---


def measured(form: Form, name: str, asked: list[Asked], replies: list[str]) -> dict[str, Any]:
    """Scores of one wording, in percent; EM also by answer type."""
    exact, strict, parsed, scales, calculated = [], [], [], [], []
    by_type: dict[str, list[float]] = {}
    for (_, question), reply in zip(asked, replies, strict=True):
        read = answer.parse(reply, form)
        score = metric.score(question, read.answer, read.scale)
        exact.append(score.em)
        by_type.setdefault(question.answer_type, []).append(score.em)
        strict.append(score.em * read.strict)
        parsed.append(read.parsed)
        scales.append(score.scale)
        calculated.append(read.calc_used)
    row: dict[str, Any] = {
        "form": form,
        "wording": name,
        "em": percent(exact),
        "em_strict": percent(strict),
        "parsed": percent(parsed),
        "scale": percent(scales),
    }
    for kind in data.ANSWER_TYPES:
        if kind in by_type:
            row[kind] = percent(by_type[kind])
    row["calc_used"] = percent(calculated)
    row["characters"] = round(sum(map(len, replies)) / len(replies))
    return row


def percent(values: Sequence[float]) -> float:
    """The mean in percent, one decimal."""
    return round(100 * sum(values) / len(values), 1)


def line(cells: Iterable[Any]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def table(rows: list[dict[str, Any]], model: str, asked: list[Asked]) -> str:
    """A markdown table, the best wording of each form first."""
    best_first = sorted(rows, key=lambda row: (row["form"], -row["em"]))
    title = f"{Path(model).name}, {len(asked)} training questions, zero-shot, in percent"
    rule = "|" + "---|" * len(rows[0])
    lines = [title, "", line(rows[0]), rule]
    for row in best_first:
        lines.append(line(row.values()))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

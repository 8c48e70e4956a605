"""A bench: a folder of FastChat's shape, and where its answers and judgments lie.

Read are question.jsonl (question_id, category, one or two turns), judge_prompts.jsonl in the folder or beside it, and
reference_answer/*.jsonl for the categories that need references; written are model_answer/ and model_judgment/.
MT-Bench itself is downloaded from FastChat at a pinned commit, once, and verified.
"""

import hashlib
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from mtbench_runner import store
from mtbench_runner.store import InputError, Row

SHIPPED = Path(__file__).parent / "benches"
COMMIT = "0e6d3e4beaab66f4d3f93db72541a4abab8af28d"
SOURCE = f"https://raw.githubusercontent.com/lm-sys/FastChat/{COMMIT}/fastchat/llm_judge/data/"
GPT_4 = "mt_bench/reference_answer/gpt-4.jsonl"
PINNED = {  # path at SOURCE -> sha256; in the bench folder all of them lie without the leading mt_bench/
    "mt_bench/question.jsonl": "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
    "judge_prompts.jsonl": "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
    GPT_4: "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
}
# questions whose GPT-4 reference answer is wrong (FastChat issue 3158)
KNOWN_WRONG = (104, 105, 109, 111, 113, 114, 120, 122, 124, 125, 126, 128, 130)


@dataclass(frozen=True)
class Bench:
    """Questions in file order, judge prompts by name, reference answers by question id, and where results go."""

    name: str
    questions: list[Row]
    prompts: dict[str, Row]
    references: dict[int, Row]
    known_wrong: tuple[int, ...]  # questions whose reference answer here is wrong
    out: Path

    def answers_file(self, model_id: str) -> Path:
        return self.out / "model_answer" / f"{model_id}.jsonl"

    def judgments_file(self, judge: str, mode: str = "single") -> Path:
        return self.out / "model_judgment" / f"{judge}_{mode}.jsonl"

    def answers(self, model_id: str) -> dict[int, Row]:
        """The newest answer to each question that has one, as FastChat reads them."""
        return {row["question_id"]: row for row in store.read(self.answers_file(model_id))}


def load(data: str | None = None, out: str | None = None, references: str | None = None) -> Bench:
    """Read a bench: a folder, a shipped one by name (demo, instruct), or MT-Bench, downloaded if needed (None)."""
    folder = Path(data or "data/mt_bench")
    if data is None:
        download(folder)
    elif not folder.is_dir() and (SHIPPED / data).is_dir():
        out, folder = out or str(Path("data") / data), SHIPPED / data
    asked, prompts = folder / "question.jsonl", folder / "judge_prompts.jsonl"
    questions = [_check_question(row, asked) for row in _rows(asked)]
    if len({q["question_id"] for q in questions}) < len(questions):
        raise InputError(f"{asked}: a question_id occurs twice")
    answered = (
        Path(references)
        if references
        else next(iter(sorted(folder.glob("reference_answer/*.jsonl"))), None)
    )
    reference_rows = _rows(answered) if answered else []
    pinned = answered and hashlib.sha256(answered.read_bytes()).hexdigest() == PINNED[GPT_4]
    return Bench(
        name=folder.resolve().name,
        questions=questions,
        prompts={
            p["name"]: p
            for p in _rows(prompts if prompts.exists() else folder.parent / prompts.name)
        },
        references={row["question_id"]: row for row in reference_rows},
        known_wrong=KNOWN_WRONG if pinned else (),
        out=Path(out) if out else folder,
    )


def _check_question(row: Row, path: Path) -> Row:
    """The row, if FastChat's judges can use it; else InputError that names the question."""
    where, turns = f"{path}: question {row.get('question_id', '?')}", row.get("turns")
    if not isinstance(row.get("question_id"), int) or not isinstance(row.get("category"), str):
        raise InputError(f"{where}: needs a whole-number question_id and a category")
    if (
        not isinstance(turns, list)
        or len(turns) not in (1, 2)
        or not all(isinstance(t, str) for t in turns)
    ):
        raise InputError(f"{where}: turns must be one or two texts")
    return row


def _rows(path: Path) -> list[Row]:
    if not path.is_file():
        raise InputError(
            f"no file {path}; a bench folder has question.jsonl, and judge_prompts.jsonl in or beside it"
        )
    return store.read(path)


def download(folder: Path) -> None:
    """Fetch what is missing of MT-Bench's pinned files and verify all of them. Raises InputError."""
    for remote, sha256 in PINNED.items():
        path, url = folder / remote.removeprefix("mt_bench/"), SOURCE + remote
        try:
            content = (
                path.read_bytes()
                if path.exists()
                else urllib.request.urlopen(url, timeout=60).read()
            )
        except OSError as error:
            raise InputError(
                f"cannot download {url} ({error}); without a network, copy MT-Bench's files into {folder} "
                "or pass --data FOLDER"
            ) from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise InputError(
                f"{path} is not FastChat's at {COMMIT[:8]} (sha256 differs); delete it or pass --data"
            )
        if not path.exists():
            store.write_whole(path, content)

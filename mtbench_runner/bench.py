"""A bench: a folder of FastChat's shape, and where its answers and judgments lie.

Read are question.jsonl (question_id, category, one or more turns), judge_prompts.jsonl in the
folder or beside it, and reference_answer/*.jsonl for the categories that need references; written
are model_answer/ and model_judgment/. MT-Bench itself is downloaded from FastChat at a pinned
commit, once, and verified.
"""

import hashlib
import re
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar, cast

from mtbench_runner import store
from mtbench_runner.rows import Answer, JudgePrompt, Place, Question, QuestionId
from mtbench_runner.shapes import fault
from mtbench_runner.store import InputError

SHIPPED = Path(__file__).parent / "benches"
COMMIT = "0e6d3e4beaab66f4d3f93db72541a4abab8af28d"
SOURCE = f"https://raw.githubusercontent.com/lm-sys/FastChat/{COMMIT}/fastchat/llm_judge/data/"
GPT_4 = "mt_bench/reference_answer/gpt-4.jsonl"
# path at SOURCE -> sha256; in the bench folder all of them lie without the leading mt_bench/
PINNED = {
    "mt_bench/question.jsonl": "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
    "judge_prompts.jsonl": "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
    GPT_4: "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
}
# questions whose GPT-4 reference answer is wrong (FastChat issue 3158)
KNOWN_WRONG = (104, 105, 109, 111, 113, 114, 120, 122, 124, 125, 126, 128, 130)
Row = TypeVar("Row", bound=Mapping[str, Any])
ERROR_ANSWER = "$ERROR$"  # what FastChat stores for an answer or a judgment that it did not get


@dataclass(frozen=True)
class Bench:
    """Questions in file order, judge prompts by name, references by question, where results go."""

    name: str
    questions: list[Question]  # those that were selected
    all_ids: frozenset[QuestionId]
    prompts: dict[str, JudgePrompt]
    references: dict[QuestionId, Answer]
    known_wrong: tuple[QuestionId, ...]  # questions whose reference answer here is wrong
    out: Path
    rating_pattern: re.Pattern[str] | None = None  # in place of FastChat's [[n]]

    def answers_file(self, model_id: str) -> Path:
        return self.out / "model_answer" / f"{store.file_name(model_id)}.jsonl"

    def judgments_file(self, judge: str, mode: str = "single") -> Path:
        return self.out / "model_judgment" / f"{store.file_name(judge)}_{mode}.jsonl"

    def answers(self, model_id: str) -> dict[QuestionId, Answer]:
        """The newest answer to each question that has one, as FastChat reads them.

        What FastChat stores for an answer that it did not get is none.
        """
        found = {}
        for row in read_answers(self.answers_file(model_id)):
            if ERROR_ANSWER not in turns_of(row):
                own = self.own(row)
                found[own["question_id"]] = own
        return found

    def answers_of(self, models: Sequence[str]) -> list[dict[QuestionId, Answer]]:
        """The answers of each model."""
        return [self.answers(model) for model in models]

    def require_answers(self, models: Sequence[str]) -> None:
        """Raise InputError where a model has no answer to any question here."""
        asked = [question["question_id"] for question in self.questions]
        for model in models:
            if self.answers(model).keys().isdisjoint(asked):
                raise InputError(
                    f"{model} has no answer to {len(self.questions)} questions "
                    f"in {self.answers_file(model)}; run the answer stage"
                )

    def own(self, row: Row) -> Row:
        """A row with its question's id as question.jsonl has it.

        Answers and judgments of Stability AI's Japanese MT-Bench say "11" for its 11.
        """
        written = row["question_id"]
        own = self._ids.get(str(written), written)
        return row if own == written else cast(Row, {**row, "question_id": own})

    @cached_property
    def _ids(self) -> dict[str, QuestionId]:
        """The questions' ids by their text."""
        return {str(identifier): identifier for identifier in self.all_ids}

    def places(self) -> list[Place]:
        """(question, turn) of everything that is to be judged, in file order."""
        return list(self.categories())

    def categories(self) -> dict[Place, str]:
        """The category of each place, in file order."""
        found = {}
        for question in self.questions:
            for turn in range(1, len(question["turns"]) + 1):
                found[question["question_id"], turn] = question["category"]
        return found


def turns_of(answer: Answer) -> list[str]:
    """What an answer says, turn by turn; of several choices the first counts, as in FastChat."""
    return answer["choices"][0]["turns"]


def read_answers(path: Path) -> list[Answer]:
    """Rows of an answer file. Raises InputError for one that is none."""
    rows = cast(list[Answer], store.read(path, Answer))
    for row in rows:
        where = f"{path}: question {row['question_id']}"
        if not row["choices"]:
            raise InputError(f"{where} has no choices with turns")
        choice = row["choices"][0]
        turns = choice["turns"]
        if len(choice.get("turns_with_thinking", turns)) != len(turns):
            raise InputError(f"{where} has another number of turns_with_thinking than of turns")
        if len(choice.get("finish_reasons", turns)) != len(turns):
            raise InputError(f"{where} has another number of finish_reasons than of turns")
    return rows


def load(
    data: str | None = None,
    out: str | None = None,
    references: str | None = None,
    judge_file: str | None = None,
    select: str | None = None,
    rating_pattern: str | None = None,
) -> Bench:
    """Read a bench: a folder, one that ships here by name, or (None) MT-Bench, downloaded once.

    `references` and `judge_file` replace the bench's own reference answers and judge prompts,
    `select` leaves some of its questions (`choose`). Raises InputError.
    """
    folder, written_to = _folders(data, out)
    questions = read_questions(folder / "question.jsonl")
    answered = Path(references) if references else _reference_file(folder)
    prompts = Path(judge_file) if judge_file else _prompt_file(folder)
    return Bench(
        name=folder.resolve().name,
        questions=choose(questions, select) if select else questions,
        all_ids=frozenset(question["question_id"] for question in questions),
        prompts=read_prompts(prompts),
        references=_read_references(answered, questions) if answered else {},
        known_wrong=KNOWN_WRONG if answered and _is_gpt_4s(answered) else (),
        out=written_to,
        rating_pattern=_compile(rating_pattern) if rating_pattern else None,
    )


def _folders(data: str | None, out: str | None) -> tuple[Path, Path]:
    """Where a bench is read, and where its answers and judgments go: beside it if not given."""
    folder = Path(data or "data/mt_bench")
    written_to = folder
    if data is None:
        download(folder)
    elif not store.is_there(data) and store.is_there(str(SHIPPED / data)):
        folder, written_to = SHIPPED / data, Path("data") / data
    return folder, Path(out) if out else written_to


def read_questions(path: Path) -> list[Question]:
    """The questions of a file. Raises InputError that names the one that cannot be used."""
    questions = [_check_question(row, path) for row in _rows(path)]
    if not questions:
        raise InputError(f"{path}: no questions in it")
    ids = {str(question["question_id"]) for question in questions}
    if len(ids) < len(questions):
        raise InputError(f"{path}: a question_id occurs twice")
    return questions


def _check_question(row: dict[str, Any], path: Path) -> Question:
    """A row as a question. Raises InputError for one without its fields."""
    where = f"{path}: question {row.get('question_id', '?')}"
    identifier = row.get("question_id")
    is_id = isinstance(identifier, int | str) and not isinstance(identifier, bool)
    if not is_id or identifier == "" or not isinstance(row.get("category"), str):
        raise InputError(f"{where}: needs a question_id (a whole number or text) and a category")
    turns = row.get("turns")
    if turns == [] or fault(turns, list[str]) is not None:
        raise InputError(f"{where}: turns must be one or more texts")
    return cast(Question, row)


def read_prompts(path: Path) -> dict[str, JudgePrompt]:
    """Judge prompts by name. Raises InputError for a row without one of its fields."""
    prompts = {}
    for row in _rows(path, JudgePrompt):
        prompts[row["name"]] = cast(JudgePrompt, row)
    return prompts


def _prompt_file(folder: Path) -> Path:
    """The judge prompts in a bench's folder, or else beside it."""
    inside = folder / "judge_prompts.jsonl"
    return inside if inside.exists() else folder.parent / inside.name


def _reference_file(folder: Path) -> Path | None:
    """GPT-4's reference answers, which FastChat's benches have; else the first file by name."""
    found = sorted(folder.glob("reference_answer/*.jsonl"))
    gpt_4 = folder / "reference_answer" / "gpt-4.jsonl"
    if gpt_4 in found:
        return gpt_4
    return found[0] if found else None


def _read_references(path: Path, questions: Sequence[Question]) -> dict[QuestionId, Answer]:
    """By the ids of the questions, of which a file may write 11 as "11"."""
    if not (store.is_there(str(path)) and path.is_file()):
        raise InputError(f"no file {path} with reference answers")
    ids: dict[str, QuestionId] = {}
    for question in questions:
        ids[str(question["question_id"])] = question["question_id"]
    found = {}
    for row in read_answers(path):
        written = row["question_id"]
        found[ids.get(str(written), written)] = row
    return found


def _is_gpt_4s(path: Path) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == PINNED[GPT_4]


def _rows(path: Path, kind: Any = None) -> list[dict[str, Any]]:
    """The rows of one of a bench's files. Raises InputError."""
    if not (store.is_there(str(path)) and path.is_file()):
        raise InputError(
            f"no file {path}; a bench folder has question.jsonl, "
            "and judge_prompts.jsonl in or beside it"
        )
    return store.read(path, kind)


def _compile(pattern: str) -> re.Pattern[str]:
    """A pattern with one group. Raises InputError."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--rating-pattern {pattern}: {error}") from None
    if compiled.groups != 1:
        raise InputError(f"--rating-pattern {pattern}: needs one group, around the number")
    return compiled


def choose(questions: list[Question], select: str) -> list[Question]:
    """The questions that a selection names: ids, ranges of ids and categories, with commas.

    `81-90,101,coding`. Raises InputError for a part that names none.
    """
    chosen: set[QuestionId] = set()
    for part in select.split(","):
        name = part.strip()
        named = [question["question_id"] for question in questions if _names(name, question)]
        if not named:
            raise InputError(f"--questions: {name!r} is no id, range or category here")
        chosen.update(named)
    return [question for question in questions if question["question_id"] in chosen]


def _names(part: str, question: Question) -> bool:
    """Whether a part of a selection names the question."""
    if part in (str(question["question_id"]), question["category"]):
        return True
    bounds = re.fullmatch(r"(\d+)-(\d+)", part)
    number = question["question_id"]
    if bounds is None or not isinstance(number, int):
        return False
    return int(bounds[1]) <= number <= int(bounds[2])


def download(folder: Path) -> None:
    """Fetch what is missing of MT-Bench's pinned files and verify all of them.

    Raises InputError.
    """
    for remote, sha256 in PINNED.items():
        path, url = folder / remote.removeprefix("mt_bench/"), SOURCE + remote
        content = path.read_bytes() if path.exists() else _fetch(url, folder)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise InputError(
                f"{path} is not FastChat's at {COMMIT[:8]} (sha256 differs); "
                "delete it or pass --data"
            )
        if not path.exists():
            store.write_whole(path, content)


def _fetch(url: str, folder: Path) -> bytes:
    """The content at an address. Raises InputError."""
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            return bytes(response.read())
    except (OSError, HTTPException) as error:
        raise InputError(
            f"cannot download {url} ({error}); without a network, copy MT-Bench's files into "
            f"{folder} or pass --data FOLDER"
        ) from None

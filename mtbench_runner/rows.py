"""The rows of every file that this package reads or writes, as types.

FastChat's own fields come first in each; what follows `NotRequired` is ours and may be absent from
rows that FastChat wrote. A field that we do not know is kept as it is.
"""

from typing import Any, Literal, NotRequired, TypedDict, final

QuestionId = int | str
Message = dict[str, str]  # role, content
Conversation = list[Message]
Place = tuple[QuestionId, int]  # question, turn from 1


class Usage(TypedDict):
    """Tokens of one or more calls; None where the server did not say."""

    prompt: int | None
    completion: int | None


@final
class Question(TypedDict):
    """A line of question.jsonl."""

    question_id: QuestionId
    category: str
    turns: list[str]


@final
class JudgePrompt(TypedDict):
    """A line of judge_prompts.jsonl."""

    name: str
    type: Literal["single", "pairwise"]
    system_prompt: str
    prompt_template: str
    output_format: str


@final
class Choice(TypedDict):
    """What a model said, turn by turn."""

    turns: list[str]
    index: NotRequired[int]
    turns_with_thinking: NotRequired[list[str]]  # where they differ from turns
    finish_reasons: NotRequired[list[str | None]]  # stop, or length: cut at the token limit
    usage: NotRequired[Usage]


@final
class Answer(TypedDict):
    """A line of model_answer/<model>.jsonl, and of reference_answer/*.jsonl."""

    question_id: QuestionId
    choices: list[Choice]
    answer_id: NotRequired[Any]
    model_id: NotRequired[Any]
    tstamp: NotRequired[float]
    key: NotRequired[str]  # a hash of what it was made from


class Provenance(TypedDict):
    """What we add to a judgment of either kind."""

    vote: NotRequired[int]  # 1 where absent
    key: NotRequired[str]  # a hash of everything that the judge was shown
    answer_sha256: NotRequired[str]
    usage: NotRequired[Usage]
    settings: NotRequired[dict[str, Any]]  # that the judge accepted
    finish_reasons: NotRequired[list[str | None]]  # one for each call
    raw: NotRequired[list[str]]  # replies as they came, where thinking was cut out of them
    choices_ignored: NotRequired[int]  # choices of a reply beyond the first


@final
class Judgment(Provenance):
    """A line of model_judgment/<judge>_single.jsonl."""

    question_id: QuestionId
    model: str
    judge: list[str]  # judge, name of its prompt
    user_prompt: str
    judgment: str
    score: float  # -1: no rating in the judgment
    turn: int
    tstamp: NotRequired[float]


@final
class PairJudgment(Provenance):
    """A line of model_judgment/<judge>_pair.jsonl: two games, with the answers swapped."""

    question_id: QuestionId
    model_1: str
    model_2: str
    g1_winner: str  # model_1, model_2, tie, or error: no verdict in the judgment
    g2_winner: str
    judge: list[str]
    g1_user_prompt: str
    g1_judgment: str
    g2_user_prompt: str
    g2_judgment: str
    turn: int
    tstamp: NotRequired[float]


AnyJudgment = Judgment | PairJudgment


@final
class FailureRow(TypedDict):
    """A line of <file>.failures: what will not be had by asking again."""

    identity: str  # a hash of what was wanted
    models: list[str]
    question_id: QuestionId
    turn: int | None  # None: an answer, all turns of it
    kind: str  # of outcome.Kind
    cause: str
    detail: str
    raw: str
    tstamp: float


@final
class ReplyRow(TypedDict):
    """A line of <file>.replies: a reply that is kept until its row is written."""

    key: str  # a hash of what was asked
    outcome: dict[str, Any]  # an outcome.Outcome


@final
class BatchLine(TypedDict):
    """A line of a batch's output, in OpenAI's shape."""

    custom_id: str


@final
class HumanVote(TypedDict):
    """A vote in the shape of FastChat's human judgments."""

    question_id: QuestionId
    model_a: str
    model_b: str
    winner: str
    turn: int


class StandardErrors(TypedDict):
    """Standard errors with the turns of a question as one cluster; None below two questions."""

    overall: float | None
    turns: dict[str, float | None]
    categories: dict[str, float | None]


class Counts(TypedDict):
    """What a person should see beside a score."""

    truncated_answers: int  # turns cut at --max-new-tokens
    thinking_only_answers: int  # turns in which the model never came to speak
    empty_answers: int  # other turns without text
    truncated_judgments: int
    out_of_range: int  # ratings outside 1 to 10


class Summary(TypedDict):
    """What the results of `score` and `pairwise` share."""

    bench: str
    model_id: str
    judge: str
    stand_in: bool
    n_questions: int
    n_expected: int
    missing: int
    usage: dict[str, int]
    usage_unknown: int  # judgments of which the server gave no token counts
    cost_usd: float | None
    overall: float | None
    turns: dict[str, float | None]
    categories: dict[str, float | None]
    category_turns: dict[str, dict[str, float | None]]
    stderr: StandardErrors
    unparsable: int
    superseded: int
    failures: dict[str, int]  # cause -> number of permanent failures
    page: NotRequired[dict[str, Any]]


class JudgeSummary(TypedDict):
    """One judge of a jury."""

    overall: float | None
    stderr: float | None
    votes: int  # the most of any turn
    within: float | None  # standard deviation of one judgment about the mean of its turn's votes


class Noise(TypedDict):
    """What the judging itself adds to a mean; None where one vote or one judge cannot tell."""

    within: float | None
    within_stderr: float | None  # its part in the standard error of `overall`
    between: float | None  # standard deviation of the judges' means
    between_stderr: float | None


class Strict(TypedDict):
    """What strict reading of the ratings would change."""

    overall: float | None
    change: float | None
    flagged: dict[str, list[Place]]


class Length(TypedDict):
    """Characters of the answers: their mean, and by turn."""

    mean: float | None
    turns: dict[str, float | None]


class ScoreFile(Summary):
    """What `score --json` writes."""

    success_rate: float | None
    known_wrong_references: list[QuestionId]
    partly_judged: int  # turns that some judges rated and others did not
    per_question: dict[str, dict[str, float | None]]
    judges: dict[str, JudgeSummary]
    noise: Noise
    interval: list[float] | None
    answer_length: Length
    counts: Counts
    strict: NotRequired[Strict]


class PairFile(Summary):
    """What `pairwise --json` and `score --baseline --json` write."""

    baseline: str
    win: int
    tie: int
    loss: int
    noise: Noise  # of the win rate, from 0 to 1
    interval: list[float] | None
    length_controlled: dict[str, float] | None
    position_consistency: float | None
    first_position: float | None
    answer_length: Length
    baseline_length: Length
    judges: dict[str, JudgeSummary]

"""Does what a sweep planned: each run is prepared (sampled, trained), then scored.

Several workers may run the same command over one shared folder: a run that another one holds is
passed over and looked at again, until all are done. What fails is told at the end; the other runs
are finished first. Where both fit (`lanes`), one lane trains while another scores what is trained:

    trains    prepare A             prepare B             prepare C
    scores    score the base        score A               score B            score C

A half is skipped over as long as what it needs is not there (`waits_for`).
"""

import contextlib
import functools
import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from results import FailedError, InputError, on_one_line
from results.command_line import in_words
from results.sweep import commands, processes, server, stages, vllm
from results.sweep.commands import SERVED, TATQA, Scored, Settings
from results.sweep.plan import Plan
from results.sweep.server import Server
from results.sweep.stages import MODEL, SERVER, LockedError, Names, Stage

STOP_SECONDS = 0.1  # between looks for commands to be stopped
STOP_LOOKS = 50  # then a lane that waits for a server elsewhere is left behind
WAIT_SECONDS = 5.0  # before runs that others hold are looked at again
KEPT_WHILE_TRAINING = 0.5  # a server with a larger share of the GPU makes room for training
VLLM = "vllm"
LOADED_AHEAD = 2  # programs of training: the one that starts now, and the next


@dataclass
class Serving:
    """The server of a sweep: none, one that runs somewhere, or one started for each base."""

    where: str | None = None  # None, "vllm" or a URL
    memory: float = 0.4
    rank: int = 16  # the largest adapter it must hold
    log_folder: Path = Path()
    overlap: bool = False  # without a server: score beside training all the same
    seconds: float = 0.0  # that starting servers took, all of them together
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _base: str | None = None
    _server: Server | None = None

    def server(self, base: str) -> Server:
        """The server of this base, started now if need be. Raises FailedError or InputError."""
        if self._server and self._base == base and alive(self._server):
            return self._server
        self.stop()
        self._server = self._open(base)
        self._base = base
        return self._server

    def _open(self, base: str) -> Server:
        if self.where != VLLM:
            return server.connect(str(self.where), base)
        log = self.log_folder / f"server-{socket.gethostname()}-{os.getpid()}.log"
        processes.say(f"starting vLLM for {base}; what it says is in {log}")
        since = time.monotonic()
        shared = self.memory <= KEPT_WHILE_TRAINING
        started = vllm.start(base, self.rank, self.memory, log, shared)
        found = self._stack.enter_context(started)
        waited = time.monotonic() - since
        self.seconds += waited
        processes.say(f"vLLM answers after {waited:.0f} s")
        return found

    @property
    def stays(self) -> bool:
        """Whether models are scored while something is trained."""
        if self.where is None:
            return self.overlap
        return self.where != VLLM or self.memory <= KEPT_WHILE_TRAINING

    def make_room(self) -> None:
        """Before training: end a server that was started here, unless it is a small one."""
        if not self.stays:
            self.stop()

    def stop(self) -> None:
        """End what was started here."""
        self._stack.close()
        self._base = self._server = None

    @contextlib.contextmanager
    def names(self, model: Scored) -> Iterator[Names]:
        """How a model can be asked for, for as long as the block lasts."""
        if self.where is None:
            yield {}
            return
        running = self.server(model.base)
        if model.adapter is None:
            yield {SERVER: running.url, MODEL: running.base}
            return
        with running.adapter(model.adapter) as name:
            yield {SERVER: running.url, MODEL: name}


def alive(server: Server) -> bool:
    """Whether the server still answers."""
    try:
        server.models()
    except FailedError:
        return False
    return True


@dataclass(frozen=True)
class Half:
    """All before a plan's scoring, or its scoring."""

    plan: Plan
    part: Literal["prepare", "score"]


Lane = Callable[[Half], bool]  # which halves are done one after the other


class Sweep:
    """The state of one execution: what is still to be done and what failed."""

    def __init__(self, plans: Sequence[Plan], settings: Settings, serving: Serving) -> None:
        self.settings = settings
        self.serving = serving
        self.failed: dict[Path, FailedError] = {}
        self.held: set[Path] = set()  # by other programs, as far as that was said
        self.left = halves(plans, served=settings.backend == SERVED)
        self.makers = {plan.adapter: plan.folder for plan in plans if plan.train}
        self.lanes = lanes(plans, serving)
        self.news = threading.Condition()
        self.settled = 0
        self.stopped = False

    def run(self) -> None:
        """Do all halves, print what failed, and raise the last FailedError or InputError."""
        working = [in_background(functools.partial(self.work, lane)) for lane in self.lanes]
        try:
            for lane in futures.as_completed(working):
                lane.result()
        finally:
            self.stop(working)
            processes.stop_all()
        tell_all(list(self.failed.values()))

    def stop(self, working: "Sequence[futures.Future[None]]") -> None:
        """End lanes that are still at work, and their commands: after a Ctrl-C, or a fault."""
        self.stopped = True
        for _ in range(STOP_LOOKS):
            if all(lane.done() for lane in working):
                return
            processes.stop_all()
            futures.wait(working, STOP_SECONDS)

    def work(self, lane: Lane) -> None:
        """Do the halves of a lane, those first that can be done now."""
        while of_lane := [half for half in self.left if lane(half)]:
            seen = self.settled
            for half in of_lane:
                if self.stopped:
                    return
                if self.settle(half):
                    self.left.remove(half)
                    self.wake_lanes()
            self.wait_for_news(seen)

    def wait_for_news(self, seen: int) -> None:
        """Return when more than `seen` halves are settled, or others' runs are to be looked at."""
        with self.news:
            self.news.wait_for(lambda: self.settled > seen, WAIT_SECONDS)

    def wake_lanes(self) -> None:
        """Let those that wait look again: a half is out of the way."""
        with self.news:
            self.settled += 1
            self.news.notify_all()

    def settle(self, half: Half) -> bool:
        """Do a half if it can be done now; returns whether it is out of the way."""
        if half.plan.folder in self.failed:
            return True
        first = self.waits_for(half)
        if first in self.failed:
            self.give_up(half, first)
            return True
        return first is None and self.hold_and_do(half)

    def hold_and_do(self, half: Half) -> bool:
        """Do a half that waits for nothing here; False if another program is at work there."""
        try:
            with stages.locked(half.plan.folder):
                if half.part == "prepare":
                    self.prepare(half.plan)
                else:
                    self.score(half.plan)
        except LockedError as error:
            self.say_held(half.plan.folder, str(error))
            return False
        except FailedError as error:
            self.fail(half.plan.folder, error)
        except OSError as error:  # a full disk, a folder that may not be written
            self.fail(half.plan.folder, FailedError(in_words(error)))
        return True

    def fail(self, folder: Path, error: FailedError) -> None:
        """Note that a run failed, with its name, and say so if others go on."""
        named = error if folder.name in str(error) else type(error)(f"{folder.name}: {error}")
        self.failed[folder] = named
        if len(self.left) > 1 and not self.stopped:
            said = on_one_line(str(error))
            processes.say(f"{folder.name}: failed, the others go on ({said})")

    def waits_for(self, half: Half) -> Path | None:
        """The folder of what must be done first, here or by another worker; None if nothing.

        The base where it is used, as it may still have to be quantized. Then, to score: the run's
        own training, and the base's scores. To prepare: the run whose adapter it trains on from.
        """
        plan = half.plan
        uses_base = half.part == "score" or bool(plan.samples)
        if uses_base and self.unprepared(plan.base):
            return plan.base
        if half.part == "prepare":
            return self.missing_maker(plan)
        if self.unprepared(plan.folder):
            return plan.folder
        return self.unscored_base(plan)

    def unprepared(self, folder: Path | None) -> bool:
        """Whether a run is still to be prepared."""
        return any(left.part == "prepare" and left.plan.folder == folder for left in self.left)

    def missing_maker(self, plan: Plan) -> Path | None:
        """Another run that makes what this one reads, and has not done so or has failed."""
        for name in plan.reads:
            maker = self.makers.get(name)
            if maker is None or maker == plan.folder:
                continue
            if maker in self.failed or self.unprepared(maker):
                return maker
        return None

    def say_held(self, folder: Path, line: str) -> None:
        """Say, once, that a run is held by another program."""
        if folder not in self.held:
            self.held.add(folder)
            processes.say(line)

    def unscored_base(self, plan: Plan) -> Path | None:
        """The base of a served run that is not scored yet: its replies are compared with those."""
        if self.settings.backend != SERVED or plan.base is None:
            return None
        if plan.base in self.failed:
            return plan.base
        scored = all(left.plan.folder != plan.base for left in self.left)
        return None if scored else plan.base

    def score_stages(self, plan: Plan, names: Names) -> None:
        """TAT-QA, MT-Bench and so on: side by side where that is asked for, else in turn."""
        if self.serving.where is None and self.serving.overlap:
            with futures.ThreadPoolExecutor() as pool:
                at_work = [pool.submit(stages.perform, one, names, False) for one in plan.scoring]
            for finished in at_work:
                finished.result()
            return
        for stage in plan.scoring:
            stages.perform(stage, names, bars=len(self.lanes) == 1)
            if stage.name == TATQA and self.serving.where is not None:
                refuse_base_replies(plan)

    def give_up(self, half: Half, first: Path) -> None:
        """Note that a half cannot be done because another run failed."""
        self.failed[half.plan.folder] = FailedError(
            f"{half.plan.folder.name}: not done, it needs {first.name}, which failed"
        )

    def prepare(self, plan: Plan) -> None:
        """Quantize, sample and train. Raises FailedError or InputError."""
        if plan.quantize:
            stages.perform(plan.quantize)
        if plan.sampled and not all_done(plan.samples):
            with self.served(plan, plan.sampled, "sampling") as names:
                stages.perform_together(plan.samples, names)
        if plan.train and not plan.train.done():
            self.serving.make_room()
            self.load_ahead()
        if plan.train:
            stages.perform(plan.train)

    @contextlib.contextmanager
    def served(self, plan: Plan, model: Scored, purpose: str) -> Iterator[Names]:
        """How a model can be asked for; what starting its server took is noted in the run."""
        before = self.serving.seconds
        with self.serving.names(model) as names:
            if self.serving.where == VLLM:
                stages.note_server(plan.folder, purpose, self.serving.seconds - before)
            yield names

    def load_ahead(self) -> None:
        """Where training has a lane of its own: load its program for this run and the next one."""
        training = [left for left in self.left if trains(left)]
        if len(self.lanes) > 1:
            processes.load_ahead(min(LOADED_AHEAD, len(training)))

    def score(self, plan: Plan) -> None:
        """Score, and write the record. Raises FailedError or InputError."""
        from results.sweep.records import write_record

        if all_done(plan.scoring):
            for stage in plan.scoring:
                stages.perform(stage)  # says that it is done
            if self.settings.backend == SERVED:
                refuse_base_replies(plan)  # a kill may have come before it was looked at
        else:
            with self.served(plan, plan.scored, "scoring") as names:
                self.score_stages(plan, names)
        write_record(plan, self.settings)


def in_background(work: Callable[[], None]) -> "futures.Future[None]":
    """Do some work in a thread of its own, which does not hold up the end of this program."""
    future: futures.Future[None] = futures.Future()

    def do() -> None:
        try:
            work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=do, daemon=True).start()
    return future


def all_done(wanted: Sequence[Stage]) -> bool:
    """Whether every one of the stages is done."""
    return all(stage.done() for stage in wanted)


def everything(half: Half) -> bool:
    """The only lane where training and scoring do not share the GPU."""
    return True


def trains(half: Half) -> bool:
    """The lane of training."""
    return half.part == "prepare" and half.plan.train is not None


def scores(half: Half) -> bool:
    """The lane beside it."""
    return not trains(half)


def lanes(plans: Sequence[Plan], serving: Serving) -> list[Lane]:
    """Training and scoring side by side: with a server that stays, or if it is asked for.

    A server changes with the base, and a round trains on replies of the server: then in turn.
    """
    bases = {plan.scored.base for plan in plans}
    samples = any(plan.samples for plan in plans)
    in_turn = serving.where is not None and (len(bases) > 1 or samples)
    if serving.stays and not in_turn:
        return [trains, scores]
    return [everything]


def halves(plans: Sequence[Plan], served: bool) -> list[Half]:
    """The order of work.

    With a server, preparing comes first: on one lane, training and server then need not share the
    GPU, and the server starts once. Of two lanes each takes its own halves.
    """
    prepare = [Half(plan, "prepare") for plan in plans]
    score = [Half(plan, "score") for plan in plans]
    if served:
        return [*prepare, *score]
    return [half for pair in zip(prepare, score, strict=True) for half in pair]


def execute(plans: Sequence[Plan], settings: Settings, serving: Serving | None = None) -> None:
    """Do what is not done yet; the same call goes on after a kill and ends with the same scores.

    Raises FailedError or InputError, with finished stages kept.
    """
    serving = serving or Serving()
    try:
        check_server(plans, serving)
        Sweep(plans, settings, serving).run()
    finally:
        serving.stop()


def check_server(plans: Sequence[Plan], serving: Serving) -> None:
    """See before the first training that a server elsewhere answers for the bases.

    Raises FailedError or InputError. One that is started here shows it soon enough.
    """
    if serving.where in (None, VLLM):
        return
    for plan in plans:
        if plan.base is None and not plan.quantize and not all_done(plan.scoring):
            serving.server(plan.scored.base)


def check(plans: Sequence[Plan], bench: str | None) -> None:
    """Let every training command look at its recipe and files, and the judge's at its bench.

    Raises InputError with what the last says that refuses; what others say is printed before.
    """
    trained = [plan.train for plan in plans if plan.train and not plan.train.done()]
    asked = [[*stage.arguments, "--check"] for stage in trained]
    if bench:
        asked.append(commands.bench_check(bench))
    problems: dict[str, None] = {}  # each once, in order
    for arguments, (code, said) in zip(asked, processes.ask(asked), strict=True):
        if code:
            problems[problem_in(said) or f"{shlex.join(arguments)}: exit code {code}"] = None
    tell_all([InputError(problem) for problem in problems])


def tell_all(failures: Sequence[FailedError]) -> None:
    """Print what failed and raise the last of it, if anything did."""
    for error in failures[:-1]:
        sys.stderr.write(f"error: {on_one_line(str(error))}\n")
    if failures:
        raise failures[-1]


def problem_in(said: str) -> str:
    """The last line of a command's that tells an error, without the word; "" if none does."""
    for line in reversed(said.splitlines()):
        if "error: " in line:
            return line.partition("error: ")[2]
    return ""


def refuse_base_replies(plan: Plan) -> None:
    """Raise FailedError if a served adapter's replies all equal the base's.

    A server that leaves an adapter out without a word answers like this. The replies are put aside,
    so that the same command asks again.
    """
    if plan.base is None:
        return
    base = replies(plan.base / TATQA)
    if replies(plan.folder / TATQA) == base:
        aside = stages.set_aside(plan.folder / TATQA)
        raise FailedError(
            f"{plan.folder.name}: all {len(base)} replies equal the base's; the server seems to"
            f" leave the adapter out, or training changed nothing; they are kept as {aside}, and"
            " the same command asks again"
        )


def replies(folder: Path) -> list[str]:
    """All replies in an lm-eval output folder, in the order of its questions."""
    from results import outputs

    rows = outputs.samples(outputs.results_file(folder))
    return [json.dumps([row["task"], row["doc_id"], row["resps"]]) for row in rows]

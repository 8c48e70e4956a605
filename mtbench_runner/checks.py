"""What can be wrong with a call, told before torch and FastChat are imported.

Nothing here asks a server of chat models; the Hub is asked for a model's configuration where no
folder has that name. Every check raises InputError.
"""

import argparse
import json
import os
import re
from pathlib import Path

from mtbench_runner.options import ANSWERING, JUDGING, READING
from mtbench_runner.store import InputError, first_line, is_there

LOCAL = "local:"  # before the folder of a judge on this machine
WRITTEN = {"missing", "votes"}  # one of them is in every result
CONFIGS = ("config.json", "adapter_config.json")  # a folder of a model has one of them
SURROGATE = re.compile("[\ud800-\udfff]")  # what Python makes of bytes in a call that are no text


def check(args: argparse.Namespace) -> None:
    """All that can be told from the call and the folders that it names."""
    check_text(args)
    check_names(args)
    if args.max_cost is not None and not args.prices:
        raise InputError("--max-cost needs --prices IN OUT")
    check_places(args)
    if args.stage in READING:
        check_judges(args)
    if args.stage in ANSWERING and args.answers_from and args.adapter:
        raise InputError(
            "--adapter is for a model on this machine; a server applies its own, "
            "under a name of its own (--model NAME)"
        )


def check_sources(args: argparse.Namespace) -> None:
    """Endpoints have an address and, where they need one, a key; the model that answers exists."""
    if args.stage in JUDGING and not args.dry_run:
        check_keys(args)  # first: a look for the model on the Hub may take a minute
    if args.stage in ANSWERING:
        check_candidate(args)


def check_text(args: argparse.Namespace) -> None:
    """No bytes in a name that are no text: no request could hold them."""
    for name in ("model", "model_id", "baseline", "system", "judge_model"):
        given = getattr(args, name, None) or []
        for text in [given] if isinstance(given, str) else given:
            if SURROGATE.search(text):
                raise InputError(f"--{name.replace('_', '-')}: {text} is not UTF-8")


def check_names(args: argparse.Namespace) -> None:
    """The model has a name, which is made of --adapter or --model, and the baseline another."""
    if args.stage == "agreement":
        return
    args.model_id = args.model_id or Path(args.adapter or args.model or "").name
    if not args.model_id:
        raise InputError("give the model a name with --model-id")
    if args.baseline == args.model_id:
        raise InputError(f"--baseline is {args.model_id} itself; name another model")


def check_places(args: argparse.Namespace) -> None:
    """A file that is to be written is no folder and none of the user's, a folder no file."""
    figure = getattr(args, "figure", None)
    for name, path in (("--json", args.json), ("--figure", figure)):
        if _is_taken(path) and Path(str(path)).is_dir():
            raise InputError(f"{name} {path} is a folder; name a file")
    if _is_taken(figure):
        raise InputError(f"{figure} is there already; name another file")
    if _is_taken(args.json) and not is_result(Path(args.json)):
        raise InputError(f"{args.json} is there, and no result of this program; name another file")
    if _is_taken(args.out) and not Path(args.out).is_dir():
        raise InputError(f"--out {args.out} is a file; name a folder")


def _is_taken(path: str | None) -> bool:
    """Whether a path was given and something is there, be it a link to nothing."""
    return bool(path) and (is_there(str(path)) or os.path.islink(str(path)))


def is_result(path: Path) -> bool:
    """Whether a file is a result that --json wrote; a link to one is the user's."""
    if path.is_symlink() or not path.is_file():  # a pipe's reader would wait for ever
        return False
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "bench" in found and bool(WRITTEN & found.keys())


# --- judges


def local_name(judge: str) -> str:
    """`local:FOLDER` under its folder's name; any other judge under its own."""
    if not judge.startswith(LOCAL):
        return judge
    return LOCAL + Path(judge.removeprefix(LOCAL)).resolve().name


def judge_names(args: argparse.Namespace) -> list[str]:
    """The judges' names in the files."""
    return [local_name(name) for name in args.judge_model]


def check_judges(args: argparse.Namespace) -> None:
    """Each judge once, none that shares a file with another or fits no batch, local ones there."""
    args.judge_model = list(dict.fromkeys(args.judge_model))
    check_judge_names(judge_names(args))
    local = [name for name in args.judge_model if name.startswith(LOCAL)]
    if args.batch and local:
        raise InputError("--batch is for judges at an endpoint; leave it out for local: ones")
    if args.batch and args.max_cost is not None:
        raise InputError("--max-cost cannot stop a batch that is sent; --dry-run tells its cost")
    if args.stage in JUDGING:
        for name in local:
            check_folder(Path(name.removeprefix(LOCAL)), "the judge's model")


def check_judge_names(names: list[str]) -> None:
    """Every judge has a name, and none that of another."""
    for name in names:
        if not name.removeprefix(LOCAL).strip():
            raise InputError("--judge-model: a judge without a name")
        if names.count(name) > 1:
            raise InputError(f"two judges are called {name}; rename one of the folders")


def check_keys(args: argparse.Namespace) -> None:
    """A judge at an endpoint has an address that is one, and a key where it needs one."""
    from mtbench_runner.endpoint import key_for

    for name in args.judge_model:
        if not name.startswith(LOCAL):
            key_for(args.judge_url)
            break


# --- the model that answers


def check_candidate(args: argparse.Namespace) -> None:
    """A served model has an address and a key where it needs one; a local one is there."""
    from mtbench_runner.endpoint import key_for

    if args.answers_from:
        if not args.dry_run:
            key_for(args.answers_from, "ANSWERS_API_KEY")
        return
    check_model(args.model, CONFIGS)
    if args.adapter:
        check_model(args.adapter, CONFIGS[1:])


def check_folder(folder: Path, what: str, configs: tuple[str, ...] = CONFIGS) -> None:
    """A folder with one of the configuration files."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder} with {what}")
    if not any((folder / name).is_file() for name in configs):
        raise InputError(f"{folder} holds no {' and no '.join(configs)}: no folder of {what}")


def check_model(name: str, configs: tuple[str, ...]) -> None:
    """A folder with one of the configuration files, or a repository on the Hub that has one."""
    if is_there(name):
        check_folder(Path(name), "a model" if len(configs) > 1 else "an adapter", configs)
        return
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    reason = ""
    for config in configs:
        try:
            hf_hub_download(name, config)
            return
        except HFValidationError:
            raise InputError(f"no folder {name}, and no name of a model on the Hub") from None
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = reason or first_line(error)
    raise InputError(f"cannot load {name}: no such folder, and not on the Hub ({reason})")

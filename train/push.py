"""Publish a run's adapter on the Hugging Face Hub, with a card that has the scores of its record.

    python -m train.push runs/calc_sft USER/NAME [--base HUB_ID] [--private] [--dry-run]

Nothing in the run's folder is changed. The token is the one of `hf auth login` or $HF_TOKEN.
"""

if __name__ == "__main__":  # a Ctrl-C may come while the rest is imported
    from tatqa_task.command_line import stop_at_once

    stop_at_once()

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tatqa_task.command_line import exit_code, say_error
from train.base import ADAPTER
from train.card import card, read
from train.init_adapter import WEIGHTS
from train.recipe import one_line
from train.sources import HUB_ID

FILES = (WEIGHTS, "chat_template.jinja", "train.json", "record.json", "curves.svg")


class PushError(Exception):
    """What is to be published is not there or not ready; the message is one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check, then upload in one commit. Exit code 2: wrong call or input; 1: the Hub refused."""
    args = parser().parse_args(argv)
    try:
        files = contents(args.run, args.repo, args.base)
    except (PushError, OSError, ValueError) as error:
        say_error(f"{args.run}: {one_line(error)}")
        return 2
    except (LookupError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        say_error(f"{args.run}: its JSON files are not as this program wrote them ({reason})")
        return 2
    if args.dry_run:
        print(files["README.md"].decode())
        print(f"{', '.join(files)} would go to {args.repo}")
        return 0
    try:
        print(upload(files, args.repo, args.private))
    except Exception as error:  # the Hub client's and httpx's many types
        say_error(f"the Hub refused {args.repo}: {one_line(error)}")
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m train.push", description=(__doc__ or "").partition("\n")[0]
    )
    made.add_argument("run", type=Path, help="folder of a finished run")
    made.add_argument("repo", help="USER/NAME of the model repository")
    made.add_argument("--base", help="Hub id of the base, where it was a folder of this machine")
    made.add_argument("--private", action="store_true", help="if the repository is new")
    made.add_argument("--dry-run", action="store_true", help="print the card, upload nothing")
    return made


def contents(run: Path, repo: str, base: str | None) -> dict[str, bytes]:
    """The files to publish, by name. Raises PushError."""
    facts = read(run, "train.json")
    if facts is None:
        raise PushError("no finished run (train.json); name a folder that python -m train wrote")
    if not HUB_ID.fullmatch(repo):
        raise PushError(f"{repo} is no repository id; it has the form USER/NAME")
    trained_on = base or facts["recipe"]["model_name_or_path"]
    if Path(trained_on).is_dir() or not HUB_ID.fullmatch(trained_on):
        raise PushError(f"the base is a folder here ({trained_on}); name its Hub id with --base")
    facts["recipe"]["model_name_or_path"] = trained_on
    config = read(run, ADAPTER)
    if config is None:
        raise PushError(f"no adapter ({ADAPTER})")
    if not (run / WEIGHTS).is_file():
        raise PushError(f"no weights ({WEIGHTS})")
    config["base_model_name_or_path"] = trained_on
    text = card(facts, repo, read(run, "record.json"), licence_on_hub(trained_on))
    files = {"README.md": text.encode(), ADAPTER: (json.dumps(config, indent=2) + "\n").encode()}
    for name in FILES:
        if (run / name).is_file():
            files[name] = (run / name).read_bytes()
    return files


def licence_on_hub(base: str) -> str | None:
    """The licence that the base's own card states; None if it states none or is out of reach."""
    from huggingface_hub import HfApi

    try:
        stated = HfApi().model_info(base, timeout=10).card_data
    except Exception:  # offline, gated, gone: the card then says that the licence is another
        return None
    found = stated.get("license") if stated else None
    return found if isinstance(found, str) else None


def upload(files: dict[str, bytes], repo: str, private: bool) -> str:
    """Make the repository if it is new, and add the files in one commit; returns its address."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    api.create_repo(repo, private=private, exist_ok=True)
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    done = api.create_commit(repo, operations, commit_message="Adapter, card and record")
    return str(done.commit_url)


if __name__ == "__main__":
    sys.exit(exit_code(main))

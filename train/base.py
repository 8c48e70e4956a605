"""The base model of a run: its tokenizer, and a hash of the weights that would be loaded.

Its files are looked at first without the libraries (`check_base`): what is missing or cut short is
told at once.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from train.recipe import RecipeError, nearest, one_line

HUB_ID = r"\w[\w.-]*(/[\w.-]+)?"
READ = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json")
VOCABULARY = ("tokenizer*", "vocab*", "tekken*", "*.model", "*.tiktoken")  # any of them will do
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.index.json")
ADAPTER = "adapter_config.json"  # PEFT's; beside it transformers loads another folder's weights
TODAY = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<format>.*?)(?P=quote)\s*\)""")
CODE = ("*.py",)  # a base that brings its own architecture


def check_base(path: str, targets: Sequence[str] = ()) -> None:
    """What a folder's files tell without being loaded. Raises RecipeError.

    `targets`: layers that are to get an adapter. Of a base on the Hub nothing is known yet.
    """
    folder = Path(path)
    try:
        if folder.is_dir():
            check_targets(tensors_of(folder), targets)
        elif not re.fullmatch(HUB_ID, path):
            raise OSError("no such model folder, nor is that a hub id (owner/name)")
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        problem = f"cannot load {path}: {one_line(error)}"
        raise RecipeError(f"model_name_or_path: {problem}") from None


def tensors_of(folder: Path) -> list[str]:
    """The names of a base's weights, as far as it has safetensors files.

    Raises OSError, ValueError or SafetensorError for a file that is missing or damaged.
    """
    weights = files_of(folder)
    content = {name: read_json(folder / name) for name in READ if (folder / name).exists()}
    if "model_type" not in content.get("config.json", {}):
        raise OSError("no config.json there that names a model_type")
    if not any(any(folder.glob(pattern)) for pattern in VOCABULARY):
        raise OSError("it has no tokenizer; tokenizer.json is missing")
    index = content.get("model.safetensors.index.json", {})
    for name in sorted(set(index.get("weight_map", {}).values())):
        if not (folder / name).is_file():
            raise OSError(f"{name} is missing, which its index names")
    names: list[str] = []
    for file in weights:
        if file.suffix == ".safetensors":
            names += tensor_names(file)
    return names


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises OSError, or ValueError that names the file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file.name} is no whole JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} is no JSON object")
    return found


def tensor_names(file: Path) -> list[str]:
    """What a safetensors file holds. Raises SafetensorError with its name if it is not whole."""
    try:
        with safe_open(file, framework="np") as tensors:
            return list(tensors.keys())
    except SafetensorError as error:
        raise SafetensorError(f"{file.name}: {error}") from None


def is_target(module: str, target: str) -> bool:
    """Whether a module's full name ends in the target's, as PEFT reads target_modules."""
    return module == target or module.endswith(f".{target}")


def check_targets(tensors: Iterable[str], targets: Sequence[str]) -> None:
    """Raise ValueError for a target that is the end of no weight's name, if the names are known."""
    layers = {name.removesuffix(".weight") for name in tensors}
    for target in targets:
        if layers and not any(is_target(layer, target) for layer in layers):
            known = sorted({layer.rpartition(".")[2] for layer in layers})
            raise ValueError(f"it has no layer named {target}; {nearest(target, known)}")


def open_base(path: str) -> tuple[Any, str]:
    """The base's tokenizer, and a sha256 of its files or the Hub's commit. Raises RecipeError."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        # a base's own code is never run, nor asked about
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        refuse_empty(tokenizer)
        if commit := getattr(config, "_commit_hash", None):
            return tokenizer, hashlib.sha256(commit.encode()).hexdigest()
        return tokenizer, hash_of(files_of(Path(path)))
    except Exception as error:  # damaged files raise anything
        reason = one_line(error)
        if "contains custom code" in reason:
            reason = "it brings code of its own, which is not run"
        problem = f"cannot load {path}: {reason}"
        raise RecipeError(f"model_name_or_path: {problem}") from None


def fix_date(tokenizer: Any, day: date) -> bool:
    """Put a day in the place of today's, which chat templates such as Llama 3.1's write.

    Else a run resumed tomorrow would be trained on other prompts. True if the template writes one.
    """
    template = tokenizer.chat_template
    if not isinstance(template, str):  # none, or several
        return False
    fixed = TODAY.sub(lambda call: repr(day.strftime(call["format"])), template)
    tokenizer.chat_template = fixed
    return fixed != template


def refuse_empty(tokenizer: Any) -> None:
    """Raise OSError for a tokenizer without a vocabulary, which transformers makes of no files."""
    if "1" not in str(tokenizer.decode(tokenizer("a 1")["input_ids"])):
        raise OSError("its tokenizer has no vocabulary; tokenizer.json is missing")


def refuse_missing_weights(path: str) -> None:
    """Raise RecipeError where the files lack weights of the model: they would be drawn at random.

    Nothing is read but the names and shapes in the files.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if getattr(AutoConfig.from_pretrained(path), "quantization_config", None):
        return  # whose weights bitsandbytes takes apart
    _, report = AutoModelForCausalLM.from_pretrained(
        path, device_map={"": "meta"}, output_loading_info=True
    )
    if missing := sorted(report["missing_keys"]):
        problem = f"its files lack {len(missing)} of the model's weights, such as {missing[0]}"
        raise RecipeError(f"model_name_or_path: {path}: {problem}")


def files_of(folder: Path) -> list[Path]:
    """All files that decide what is computed: config, weights in any format, code.

    Raises OSError for a folder that holds none, or an adapter.
    """
    if (folder / ADAPTER).exists():
        raise OSError("it holds an adapter, which `init_adapter` names; a base is wanted here")
    found = [folder / "config.json"]
    for pattern in (*WEIGHTS, *CODE):
        found += sorted(folder.glob(pattern))
    if len(found) == 1:
        raise OSError("the folder holds no weights")
    return found


def hash_of(files: Iterable[Path]) -> str:
    """One sha256 of several files' names and contents."""
    known = Known()
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.name} {known.sha256(file)} ".encode())
    known.keep()
    return whole.hexdigest()


class Known:
    """Hashes of large files, kept in the cache folder as long as the file is not written to.

    A file is known by its path, inode, size and times of change; the last are set by the system.
    """

    def __init__(self) -> None:
        self.path = cache_folder() / "hashes.json"
        self.hashes: dict[str, str] = {}
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            self.hashes = {str(key): str(value) for key, value in found.items()}
        except (OSError, ValueError, AttributeError):
            pass  # none yet, or damaged: they are made anew

    def sha256(self, file: Path) -> str:
        """The file's hash, read from the file where it is not known."""
        facts = file.stat()
        times = (facts.st_size, facts.st_ino, facts.st_mtime_ns, facts.st_ctime_ns)
        key = f"{file.resolve()} {times}"
        if key not in self.hashes:
            with file.open("rb") as content:
                self.hashes[key] = hashlib.file_digest(content, "sha256").hexdigest()
        return self.hashes[key]

    def keep(self) -> None:
        """Write them down; a cache folder that cannot be written costs time alone."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = self.path.with_name(f".{os.getpid()}.json")
            whole.write_text(json.dumps(self.hashes, indent=1), encoding="utf-8")
            whole.replace(self.path)
        except OSError:
            pass


def cache_folder() -> Path:
    """Where this program keeps what it can make anew: $XDG_CACHE_HOME/tatqa-bench."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tatqa-bench"

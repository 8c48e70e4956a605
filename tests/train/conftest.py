"""A model that trains in a second, and synthetic contexts in the official file format."""

import contextlib
import json
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tatqa_task import data, synthetic


@pytest.fixture(scope="session")
def contexts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TATQA_DATA folder: 12 training contexts, 4 for validation, 4 for test."""
    folder = tmp_path_factory.mktemp("tatqa")
    for split, n in {"train": 12, "validation": 4, "test": 4}.items():
        (folder / data.FILES[split][0]).write_text(json.dumps(synthetic.generate(split, n)))
    return folder


@pytest.fixture
def small_data(contexts_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder as $TATQA_DATA."""
    monkeypatch.setenv("TATQA_DATA", str(contexts_folder))
    return contexts_folder


@pytest.fixture(scope="session")
def mini(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Qwen3 with the shipped tokenizer, in fp32."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, Qwen3ForCausalLM

    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "head_dim": 8,
        "dtype": "float32",
    }
    shape |= {"initializer_range": 0.1}
    heads: dict[str, Any] = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "layer_types": ["full_attention"] * 2,
    }
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("mini")
    Qwen3ForCausalLM(AutoConfig.from_pretrained(tiny_base, **shape, **heads)).save_pretrained(
        folder
    )
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    return folder


@pytest.fixture
def recipe_file(mini: Path, tmp_path: Path) -> Path:
    """A recipe that trains the small model on all pairs in a few steps."""
    path = tmp_path / "small.yaml"
    path.write_text(
        f"model_name_or_path: {mini}\nlearning_rate: 1.0e-3\nlora_r: 4\neffective_batch_size: 8\n"
        "save_steps: 2\n"
        "max_pairs: 44\n"
    )
    return path


@contextlib.contextmanager
def _no_file_beyond(size: int) -> Iterator[None]:
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, before)


@pytest.fixture
def no_file_beyond() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """As on a disk that fills up: inside the block no file may grow past so many bytes."""
    return _no_file_beyond

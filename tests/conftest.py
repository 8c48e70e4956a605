"""Fixtures that every room's tests share: where the real data lies, and the small base."""

import contextlib
import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("TATQA_BENCH_SHARED", ROOT.parent / "shared"))

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two workers share two cores, and sums keep their order in any process
os.umask(0o022)  # what tests make may be read by others, whatever the developer's files may
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a script's background jobs ignore Ctrl-C, and so would the programs that tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)

# no example has to end within a time: that would fail tests on a busy machine
settings.register_profile("any-machine", settings.default, deadline=None)
settings.load_profile("any-machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `real` tests, by name, on a machine without the real data files."""
    if (SHARED / "data").is_dir():
        return
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(
                pytest.mark.skip(reason=f"needs the real data files in {SHARED / 'data'}")
            )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with tatqa/, mt_bench/ and qwen3/ (only for tests marked `real`)."""
    return SHARED / "data"


@pytest.fixture(scope="session")
def tiny_base() -> Path:
    """The small Qwen3-architecture model that ships with the project."""
    return ROOT / "train" / "bases" / "tiny-tatqa"


@pytest.fixture(autouse=True)
def _clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No key, endpoint, data setting or cache of the developer's shell reaches a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "TATQA_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _commands_leave_nothing() -> Iterator[None]:
    """A command freezes what it leaves in memory, for its process ends; a test's goes on."""
    yield
    gc.unfreeze()


NOBODY = 65534


@pytest.fixture
def as_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], AbstractContextManager[None]]:
    """For blocks in which permissions hold for root as well: paths are to be relative ones."""
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            if is_root:
                os.seteuid(0)

    return block

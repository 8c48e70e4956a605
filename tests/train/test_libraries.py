"""Loading the libraries of a training: what is left out, and that all is put back."""

import gc
import importlib.metadata
import subprocess
import sys

import pytest
import transformers.utils
from trl import import_utils

from train.libraries import Distributions, loading, scan

# In a process of its own, where no other test has imported anything.
PROGRAM = """
import gc, sys
from train import libraries
scan = libraries.scan
scans = []
libraries.scan = lambda: scans.append(1) or scan()
with libraries.loading():
    from train import run
print(len(scans), "transformers.modeling_utils" in sys.modules, "scipy" in sys.modules)
print(gc.get_freeze_count() > 100_000)
"""


def test_the_collector_rests_for_the_imports_alone_and_all_is_put_back() -> None:
    """Also where an import fails."""
    own = transformers.utils.is_scipy_available
    enabled = []

    def failing_import() -> None:
        enabled.append(gc.isenabled())
        raise ImportError("no torch")

    with pytest.raises(ImportError), loading():
        failing_import()
    assert [*enabled, gc.isenabled()] == [False, True]
    assert transformers.utils.is_scipy_available is own
    assert importlib.metadata.packages_distributions is scan


def test_a_training_lists_no_files_loads_no_scipy_and_leaves_nothing_to_be_collected() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "True", "False", "True"]


def test_who_looks_for_a_distribution_finds_what_the_standard_library_finds() -> None:
    found, expected = Distributions(), scan()
    assert dict(found)["peft"] == expected["peft"] == ["peft"]
    assert found["yaml"] == expected["yaml"]
    assert found.get("no_such_package") is None
    assert set(found) == set(expected)
    assert len(found) == len(expected)


@pytest.mark.parametrize("package", ["transformers", "peft", "huggingface_hub", "yaml"])
def test_trl_finds_the_same_versions(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = import_utils._is_package_available(package, return_version=True)
    monkeypatch.setattr(import_utils, "PACKAGE_DISTRIBUTION_MAPPING", Distributions())
    found = import_utils._is_package_available(package, return_version=True)
    assert found == expected

"""Loading the libraries of a training: what is left out, and that all is put back."""

import gc
import subprocess
import sys

import pytest
import transformers.utils

from train.libraries import loading

# In a process of its own, where no other test has imported anything.
PROGRAM = """
import gc, sys
from train import libraries
with libraries.loading():
    from train import run
print("transformers.modeling_utils" in sys.modules, "scipy" in sys.modules)
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


def test_a_training_loads_no_scipy_and_leaves_nothing_to_be_collected() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False", "True"]

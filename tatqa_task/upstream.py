"""A folder for lm-evaluation-harness itself.

    python -m tatqa_task upstream lm_eval/tasks/tatqa

The task files and the modules they need, which import nothing of this package: `utils.py` is
harness.py, the others get the prefix `tatqa_` and are found beside it. The same code, so the same
numbers.
"""

import re
from pathlib import Path

from tatqa_task import task_files
from tatqa_task.files import refuse_strangers, write_missing

HERE = Path(__file__).parent
DATA = ("synthetic.json", "errata.json")
FUNCTIONS = "utils"  # upstream's name for the module that task files name
FIND_MODULES = """\
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the modules beside this file

"""
_FROM_PACKAGE = re.compile(r"^from tatqa_task import (.+)$", re.MULTILINE)
_FROM_MODULE = re.compile(r"^from tatqa_task\.(\w+) import", re.MULTILINE)


def write(folder: Path) -> list[str]:
    """Write the folder, new or empty or as a killed run left it; returns the names of its files.

    Raises DataError.
    """
    files = {name: content.encode() for name, content in contents().items()}
    refuse_strangers(folder, files)
    write_missing(folder, files)
    return sorted(files)


def contents() -> dict[str, str]:
    """All files of the folder: name and content."""
    made = {"README.md": _read("README.md"), f"{FUNCTIONS}.py": _functions()}
    for module in needed():
        made[f"tatqa_{module}.py"] = standing_alone(_read(f"{module}.py"))
    for name in DATA:
        made[f"tatqa_{name}"] = _read(name)
    for name, content in task_files.files().items():
        made[name] = content.replace("tatqa_task.harness.", f"{FUNCTIONS}.")
    return made


def needed() -> list[str]:
    """The modules that harness.py imports, itself or through others, as they are found."""
    found: list[str] = []
    waiting = ["harness"]
    while waiting:
        for name in imported(_read(f"{waiting.pop()}.py")):
            if name not in found:
                found.append(name)
                waiting.append(name)
    return found


def imported(source: str) -> list[str]:
    """The modules of this package that a module's source imports."""
    found = _FROM_MODULE.findall(source)
    for names in _FROM_PACKAGE.findall(source):
        found += [name.strip() for name in names.split(",")]
    return found


def _read(name: str) -> str:
    """A file of this folder."""
    return (HERE / name).read_text(encoding="utf-8")


def _functions() -> str:
    """harness.py, which puts the folder it stands in on the path before it imports from there."""
    text = standing_alone(_read("harness.py"))
    before, first, after = text.partition("import tatqa_")
    return before + FIND_MODULES + first + after


def standing_alone(source: str) -> str:
    """A module's source that imports the modules beside it, not this package."""

    def modules(found: re.Match[str]) -> str:
        lines = []
        for name in found.group(1).split(","):
            lines.append(f"import tatqa_{name.strip()} as {name.strip()}")
        return "\n".join(lines)

    return _FROM_MODULE.sub(r"from tatqa_\1 import", _FROM_PACKAGE.sub(modules, source))

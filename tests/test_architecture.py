"""The house rules that a reader cannot see from one file: who imports whom, what is documented, how long files are."""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from pathlib import Path

import pytest

import attribguard

PACKAGE = Path(attribguard.__file__).parent
LONGEST = 250

# The rooms of the house from the ground up. A room imports only rooms that stand to its left.
ROOMS = [
    "errors", "processes", "compiling", "value_checks", "whole_files", "plain_data", "weights_file", "device",
    "functional", "masks", "layout", "corruption", "capture", "modes", "survey", "layers", "pyramid", "network",
    "draws", "batch", "double_backward", "corrupted_pass", "second_order", "tail", "step", "trace", "losses",
    "criterion", "term", "penalties", "heads", "weighting", "plan", "validation", "objective", "guard", "wrapping",
    "checkpoint", "attribution", "probes", "data", "models", "auditing", "demo", "reproduce", "cli",
]  # fmt: skip
ROOT = "the package root"

# Rooms that may import less than what stands to their left.
OWN_ROOMS = {"functional": {"errors"}, "data": {"errors", "plain_data", "functional", "masks"}}
OUTSIDE = {"functional": {"torch", "numpy", "scipy", *sys.stdlib_module_names}}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path):
    """`attribguard.penalties.actdiff` for a file in the package; a package's `__init__.py` goes by the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(source, module, is_package=False):
    """Yields (line, absolute dotted name) for every import in `source`, at any depth, relative ones resolved."""
    here = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), here)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def room_of(name):
    """The room of a dotted name in the package; the root for what is no room, such as a name that it re-exports."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ROOT


def root_height():
    """The root stands on the highest room that it re-exports; only rooms above that one may import it."""
    rooms = {room_of(name) for _, name in package_imports(PACKAGE / "__init__.py") if name.startswith("attribguard.")}
    return max(ROOMS.index(room) for room in rooms - {ROOT})


def package_imports(path):
    return list(imported_modules(path.read_text("utf-8"), module_name(path), path.name == "__init__.py"))


def violations(source, module, is_package=False, root=0):
    """What breaks the import rules in one file, as a list of sentences; empty where all is well."""
    if module == "attribguard":
        return []
    room = module.split(".")[1]
    if room not in ROOMS:
        return [f"{module}: the room {room!r} has no place in ROOMS"]
    found = []
    for line, name in imported_modules(source, module, is_package):
        package, other = name.split(".")[0], room_of(name)
        where = f"{module}:{line} imports {name}"
        if package != "attribguard":
            if room in OUTSIDE and package not in OUTSIDE[room]:
                found.append(f"{where}, which {room} may not")
        elif other is ROOT:
            if root >= ROOMS.index(room):
                found.append(f"{where} from the root, which stands above {room}")
        elif ROOMS.index(other) > ROOMS.index(room):
            found.append(f"{where}, upward")
        elif other != room and other not in OWN_ROOMS.get(room, {other}):
            found.append(f"{where}, which {room} may not")
    return found


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_run_downward(path):
    source = path.read_text("utf-8")
    assert violations(source, module_name(path), path.name == "__init__.py", root_height()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("attribguard.penalties.actdiff", "from attribguard.guard import Guard"),
        ("attribguard.penalties.actdiff", "from ..guard import Guard"),
        ("attribguard.penalties.actdiff", "import attribguard.guard"),
        ("attribguard.masks", "from attribguard import trace"),
        ("attribguard.masks", "from . import trace"),
        ("attribguard.masks", "def late():\n    from attribguard.cli import main"),
        ("attribguard.masks", "from attribguard import ActDiff"),
        ("attribguard.masks", "import attribguard as ag"),
        ("attribguard.attic", "import torch"),
        ("attribguard.functional.actdiff", "from attribguard.masks import resize"),
        ("attribguard.functional.actdiff", "import timm"),
        ("attribguard.data.crosses", "from attribguard.guard import wrap"),
    ],
)
def test_the_import_check_reports_an_import_that_breaks_the_rules(module, source):
    assert len(violations(source, module, root=root_height())) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "attribguard.guard",
            "import torch, timm\nfrom attribguard.penalties import Penalty\nfrom .trace import Trace",
        ),
        ("attribguard.functional.actdiff", "import math\nimport torch\nfrom scipy import ndimage\nfrom . import other"),
        ("attribguard.data.crosses", "from attribguard import masks\nfrom attribguard.errors import DataError"),
        ("attribguard.cli", "import attribguard as ag\nfrom attribguard import demo, wrap"),
    ],
)
def test_the_import_check_lets_downward_imports_pass(module, source):
    assert violations(source, module, root=root_height()) == []


def test_package_inits_only_re_export():
    """Imports, now or when asked, a docstring and `__all__`: whatever computes has a file that says what is in it."""
    for path in FILES:
        if path.name != "__init__.py":
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            dunder = isinstance(node, ast.Assign) and all(
                isinstance(target, ast.Name) and target.id.startswith("__") for target in node.targets
            )
            late = ast.unparse(node).startswith(("if TYPE_CHECKING:", "def __getattr__(name: str)"))
            imported = isinstance(node, (ast.Import, ast.ImportFrom))
            assert docstring or dunder or imported or late, f"{path}:{node.lineno}"


def public_modules():
    names = [info.name for info in pkgutil.walk_packages([str(PACKAGE)], "attribguard.") if "._" not in info.name]
    return [attribguard, *(importlib.import_module(name) for name in names if not name.endswith(".__main__"))]


def undocumented(owner, name, value):
    """Names that carry no docstring of their own: the one Python writes for a dataclass or a tuple is not one."""
    if not (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)):
        return []
    doc = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    written = doc and doc.strip() and not doc.startswith((f"{name}(", "Alias for field"))
    return [] if written else [f"{owner}.{name}"]


def test_every_public_name_has_a_docstring():
    missing = []
    for module in public_modules():
        missing += undocumented("import", module.__name__, module)
        for name in getattr(module, "__all__", ()):
            missing += undocumented(module.__name__, name, getattr(module, name))
    assert missing == []


def test_the_docstring_check_sees_a_bare_function_and_a_generated_docstring():
    class Bare:
        pass

    made = type("Made", (), {"__doc__": "Made(x: int)"})
    written = type("Written", (), {"__doc__": "Says something."})
    assert undocumented("m", "Bare", Bare) == ["m.Bare"]
    assert undocumented("m", "f", lambda: 0) == ["m.f"]
    assert undocumented("m", "Made", made) == ["m.Made"]
    assert undocumented("m", "Written", written) == []


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_stay_readable_at_one_sitting(path):
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= LONGEST, f"{path} has {lines} lines; split it by what the parts do"


def test_the_package_ships_its_types():
    assert (PACKAGE / "py.typed").is_file()

"""The house: which folder may import which, what stays free of torch, and a tour that names every room."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "isentropic"
FLOORS = {
    "cli": 8,
    "commands": 7,
    "training": 6,
    "behaviour": 6,
    "measure": 5,
    "run_folder": 4,
    "entropy": 4,
    "responses": 4,
    "models": 3,
    "prompts": 2,
    "gap": 2,
    "losses": 2,
    "report": 3,
    "settings": 2,
    "labels": 2,
    "files": 1,
    "errors": 0,
    "text": 0,
    "schema": 0,
}
FILES = sorted(
    file for file in SOURCE.rglob("*.py") if file.parent != SOURCE or not file.stem.startswith("__")
)


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(file: Path) -> set[str]:
    """The folders and files of the package that a file imports, type checking aside."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    modules = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    found = set()
    for node in modules:
        parts = (node.module or "").split(".")
        if parts[0] == "isentropic":
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_go_down_the_floors(file):
    room = room_of(file)
    above = {other for other in imported_rooms(file) - {room} if FLOORS[other] >= FLOORS[room]}
    assert not above, f"{room} is on floor {FLOORS[room]}"


def test_every_room_has_a_floor():
    assert {room_of(file) for file in FILES} == set(FLOORS)


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.name == "__init__.py"], ids=lambda file: file.parent.name
)
def test_a_package_init_holds_names_and_no_code(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.ImportFrom, ast.Assign)
    assert ast.get_docstring(tree)
    assert all(isinstance(node, kinds) for node in tree.body[1:])
    assert all(
        ast.unparse(node.targets[0]) == "__all__" for node in tree.body if isinstance(node, ast.Assign)
    )


def test_the_rooms_of_plain_data_never_import_torch():
    rooms = ["prompts", "gap", "settings", "run_folder", "report", "labels", "files", "cli"]
    names = ", ".join(f"isentropic.{room}" for room in rooms)
    code = (
        f"import sys, {names}; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_tour_names_every_folder_and_file():
    tour = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tour = tour[tour.index("## Codebase tour") : tour.index("## Tests")]
    named = {name.removesuffix(".py").removesuffix("/") for name in re.findall(r"`([\w./]+)`", tour)}
    rooms = {file.stem if file.name != "__init__.py" else file.parent.name for file in FILES}
    assert rooms <= named, f"not in the tour: {sorted(rooms - named)}"


def test_the_walks_name_functions_that_exist():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    walks = page[page.index("## Two walks") : page.index("## Tests")]
    stops = re.findall(r"`([\w/]+\.py): ([\w.]+)`", walks)
    assert len(stops) > 10
    for file, name in stops:
        body = ast.parse((SOURCE / file).read_text(encoding="utf-8")).body
        for part in name.split("."):
            found = [node for node in body if getattr(node, "name", None) == part]
            assert found, f"{file} has no {name}"
            body = found[0].body


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_functions_are_short_and_take_few_arguments_or_say_why(file):
    """At most 60 lines and six arguments by place, or "long because", "arguments because" in the docstring."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        said = " ".join((ast.get_docstring(node) or "").lower().split())
        lines = node.end_lineno - node.lineno + 1
        by_place = [a for a in node.args.posonlyargs + node.args.args if a.arg not in ("self", "cls", "ctx")]
        assert lines <= 60 or "long because" in said, f"{node.name} has {lines} lines"
        assert len(by_place) <= 6 or "arguments because" in said, f"{node.name} has {len(by_place)} arguments"

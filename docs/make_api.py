"""Write docs/api.md from the docstrings: python docs/make_api.py. Reads the sources, imports nothing of them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
SOURCE = DOCS.parent / "src" / "isentropic"
HEAD = """# API

Made by `python docs/make_api.py` from the docstrings. Names under *isentropic* come with `from isentropic import NAME`; the
others from the file that is named. Entropies and gaps are in nats.
"""
# Documented besides the names of the package; an empty tuple means all public names of the file.
MODULES: dict[str, tuple[str, ...]] = {
    "gap": (),
    "entropy": (
        "token_entropy",
        "token_surprisal",
        "EntropySums",
        "Head",
        "entropy_from_hidden",
        "weighted_entropy",
    ),
    "prompts": (),
    "prompts.swap": (),
    "models": ("LoadedModel", "save_model"),
    "measure": ("Measurement", "measure", "summarise"),
    "behaviour": ("PairedBehaviour", "read_sets", "log_likelihoods", "stereoset_scores"),
    "report": (),
}
Definition = ast.FunctionDef | ast.ClassDef


def definitions(tree: ast.Module) -> dict[str, Definition]:
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def literal(tree: ast.Module, name: str) -> list | dict:
    """The value of a module's plain assignment, such as __all__; empty without one."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            return ast.literal_eval(node.value)
    return []


def trees(module: str) -> Iterator[ast.Module]:
    """The module's tree; for a folder those of all its files, ``__init__`` first."""
    path = SOURCE / module.replace(".", "/")
    for file in sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]:
        yield ast.parse(file.read_text(encoding="utf-8"))


def signature(node: Definition) -> str:
    """As it is called: for a class with the arguments of __init__, or its fields where it is a dataclass."""
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"{node.name}({arguments(node)}){returns}"
    methods = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
    if "__init__" in methods:
        return f"{node.name}({arguments(methods['__init__'])})"
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    return f"{node.name}({', '.join(ast.unparse(part) for part in fields)})"


def arguments(node: ast.FunctionDef) -> str:
    return re.sub(r"^self(, )?", "", ast.unparse(node.args))


def text_of(docstring: str) -> list[str]:
    """A docstring as Markdown: sections in bold, arguments as a list, examples fenced, maths as code."""
    lines: list[str] = []
    fenced = False
    for line in inspect.cleandoc(docstring).splitlines():
        section = re.fullmatch(r"([A-Z][\w ]+):", line)
        indented = line.startswith("    ")
        if fenced and line.strip() and not indented:
            lines, fenced = [*trimmed(lines), "```", ""], False
        if section:
            lines += [f"**{section[1]}**", ""]
        elif fenced:
            lines.append(line[4:])
        elif line.lstrip().startswith(">>>"):
            lines, fenced = [*lines, "```pycon", line[4:]], True
        elif line.startswith(".. math:: "):
            lines.append(f"`{plain(line.removeprefix('.. math:: '))}`")
        elif argument := re.match(r"    ([\w, *]+): (.*)", line):
            lines.append(marked(f"- `{argument[1]}`: {argument[2]}"))
        else:
            lines.append(marked(re.sub(r"^ {4,}(?=- )", "  ", line) if "- " in line[:10] else line.strip()))
    return [*trimmed(lines), "```"] if fenced else lines


def trimmed(lines: list[str]) -> list[str]:
    """Without empty lines at the end."""
    while lines and not lines[-1]:
        lines = lines[:-1]
    return lines


def marked(line: str) -> str:
    """reStructuredText's code and references as Markdown's code."""
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", line.replace("``", "`"))


def plain(maths: str) -> str:
    """The little TeX there is, as text."""
    for tex, sign in {r"\quad\text{or}\quad": "or", r"\bar H": "H_mean", r"\lambda": "lambda"}.items():
        maths = maths.replace(tex.replace("\\", "\\\\"), sign).replace(tex, sign)
    return maths


def entry(node: Definition, level: int = 3) -> list[str]:
    docstring = ast.get_docstring(node) or ""
    lines = [f"{'#' * level} {node.name}", "", "```text", signature(node), "```", "", *text_of(docstring), ""]
    if isinstance(node, ast.ClassDef):
        for part in node.body:
            if (
                isinstance(part, ast.FunctionDef)
                and not part.name.startswith("_")
                and ast.get_docstring(part)
            ):
                lines += entry(part, level + 1)
    return lines


def make() -> str:
    lines = [HEAD]
    root = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    files = literal(root, "_NAMES")
    assert isinstance(files, dict)
    lines += ["## isentropic", ""]
    for name, module in files.items():
        found = [definitions(tree)[name] for tree in trees(module) if name in definitions(tree)]
        lines += entry(found[0])
    for module, chosen in MODULES.items():
        door, *rooms = trees(module)
        known = {name: node for tree in (door, *rooms) for name, node in definitions(tree).items()}
        listed = chosen or literal(door, "__all__")
        rest = [known[name] for name in listed if name in known and name not in files]
        summary = (ast.get_docstring(door) or "").splitlines()[0]
        lines += [f"## isentropic.{module}", "", summary, ""]
        for node in rest:
            if ast.get_docstring(node):
                lines += entry(node)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


if __name__ == "__main__":
    (DOCS / "api.md").write_text(make(), encoding="utf-8")

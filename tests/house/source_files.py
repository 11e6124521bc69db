"""Readers of the package's source files: imports, sizes of functions, C symbols."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "qwenvis"
GENERATED = set(PACKAGE.glob("ops/*.c"))  # by Cython


@dataclass(frozen=True)
class Import:
    """One imported name: ``ops.vol2col`` if it is ours, else the distribution's top module; ``lazy`` in a function."""

    target: str
    ours: bool
    lazy: bool


@dataclass(frozen=True)
class Function:
    """A function, its lines without the docstring, and its positional arguments without self."""

    name: str
    lines: int
    arguments: int


def files(*suffixes: str) -> list[Path]:
    """Return the source files of the package with one of these suffixes, except generated files."""
    return sorted(p for p in PACKAGE.rglob("*") if p.suffix in suffixes and p not in GENERATED)


def module_of(path: Path) -> str:
    """Return the dotted name of a file below the package: ``images.decode``, and ``images`` for its ``__init__``."""
    parts = [*path.relative_to(PACKAGE).parts[:-1], path.name.split(".", maxsplit=1)[0]]
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def name_in_package(path: Path) -> str:
    """Return the path of a file below the package, as the id of a test case."""
    return path.relative_to(PACKAGE).as_posix()


def imports_of(path: Path) -> list[Import]:
    """Return all imports and cimports of a Python or Cython file."""
    package = ("qwenvis", *path.relative_to(PACKAGE).parts[:-1])
    parse = python_imports if path.suffix in (".py", ".pyi") else cython_imports
    return parse(path.read_text(encoding="utf-8"), package)


def python_imports(text: str, package: tuple[str, ...]) -> list[Import]:
    """Return the imports of a Python module of ``package``, those inside functions included.

    A whole room that is imported counts as what is used of it: ``ops`` and ``ops.vol2col(...)`` are ``ops.vol2col``.
    """
    tree, found = ast.parse(text), []

    def visit(node: ast.AST, lazy: bool) -> None:
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            if isinstance(node, ast.Import):
                imported = _imported(package, 0, alias.name, None, lazy)
            else:
                imported = _imported(package, node.level, node.module or "", alias.name, lazy)
            used = _attributes(tree, alias.asname or alias.name) if "." not in imported.target else set()
            parts = (
                sorted(f"{imported.target}.{name}" for name in used) if imported.ours and used else [imported.target]
            )
            found.extend(Import(part, imported.ours, lazy) for part in parts)
        for child in ast.iter_child_nodes(node):
            visit(child, lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(tree, lazy=False)
    return found


def _attributes(tree: ast.AST, name: str) -> set[str]:
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == name}


def cython_imports(text: str, package: tuple[str, ...]) -> list[Import]:
    """Return the imports and cimports of a Cython module of ``package``; indented imports count as lazy."""
    text = re.sub(r'"""[\s\S]*?"""', "", text)
    found = []
    pattern = r"^([ \t]*)(?:from\s+(\.*)([\w.]*)\s+c?import\s+(\([^)]*\)|[^\n#]+)|c?import\s+([^\n#]+))"
    for indent, dots, module, names, modules in re.findall(pattern, text, re.MULTILINE):
        for name in re.findall(r"([\w.*]+)(?:\s+as\s+\w+)?", names or modules):
            source, what = (module, name) if names else (name, None)
            found.append(_imported(package, len(dots), source, what, bool(indent)))
    return found


def _imported(package: tuple[str, ...], level: int, module: str, name: str | None, lazy: bool) -> Import:
    parts = [*(package[: len(package) - level + 1] if level else ()), *(module.split(".") if module else ())]
    if parts[0] != "qwenvis":
        return Import(parts[0], ours=False, lazy=lazy)
    return Import(".".join([*parts[1:], *([name] if name else [])]) or "__init__", ours=True, lazy=lazy)


def functions_of(path: Path) -> list[Function]:
    """Return the functions that a Python, Cython, C or JavaScript file defines."""
    text = path.read_text(encoding="utf-8")
    match path.suffix:
        case ".c" | ".h":
            return [Function(name_of(header), lines, 0) for header, lines in c_declarations(text) if lines]
        case ".js":
            return javascript_functions(text)
        case ".pyx" | ".pxd":
            return cython_functions(text)
        case ".py" | ".pyi":
            return python_functions(text)
        case _:
            return []  # HTML and CSS


def javascript_functions(text: str) -> list[Function]:
    """Return the functions and methods of a JavaScript module that is indented as ours are."""
    names = r"(?:export |async |static |get |function )*(?!if\b|for\b|while\b|switch\b)(\w+)"
    header = rf"^([ ]*){names}\(([^\n]*)\) \{{\n(.*?)^\1\}}"
    found = []
    for _, name, given, body in re.findall(header, text, re.MULTILINE | re.DOTALL):
        arguments = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "pattern", given)
        found.append(Function(name, body.count("\n") + 2, len(arguments.split(",")) if arguments else 0))
    return found


def python_functions(text: str) -> list[Function]:
    """Return the functions and methods of a Python module, nested functions included."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            has_docstring = ast.get_docstring(node, clean=False) is not None
            docstring = first.end_lineno - first.lineno + 1 if has_docstring else 0
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
            lines = node.end_lineno - node.lineno + 1 - docstring
            found.append(Function(node.name, lines, len([n for n in names if n not in ("self", "cls")])))
    return found


def cython_functions(text: str) -> list[Function]:
    """Return the functions of a Cython module: def, cdef and cpdef, at any depth of indentation."""
    text = re.sub(r'^[ \t]*"""[\s\S]*?"""[ \t]*\n', "", text, flags=re.MULTILINE)
    start = r"^([ \t]*)(?:def|cp?def)\s(?!extern|struct|class|enum|packed)[^\n(=]*?"
    header = start + r"(\w+)\(((?:[^()]|\([^()]*\))*)\)[^\n]*:\n"
    found = []
    for match in re.finditer(header, text, re.MULTILINE):
        indent, name, arguments = match.groups()
        body = re.match(rf"(?:{indent}[ \t]+[^\n]*\n|[ \t]*\n)*", text[match.end() :])[0].rstrip()
        names = [part.strip() for part in _split(arguments.partition("*,")[0])]
        count = len([n for n in names if n and n not in ("self", "cls") and not n.startswith("**")])
        found.append(Function(name, (match[0] + body).count("\n") + 1, count))
    return found


def _split(arguments: str) -> list[str]:
    """Split at the commas outside brackets."""
    return re.split(r",(?![^\[(]*[\])])", arguments)


def c_declarations(text: str) -> Iterator[tuple[str, int]]:
    """Yield each top-level declaration of a C file: its header, and its lines if it defines a function, else 0."""
    text = re.sub(r"/\*[\s\S]*?\*/|//[^\n]*", lambda m: "\n" * m[0].count("\n"), text)
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.MULTILINE)
    text = re.sub(r'"(?:\\.|[^"\\])*"', '""', text)
    header, start, depth = "", 0, 0
    for end, character in enumerate(text):
        depth -= character == "}"
        if depth == 0 and character not in "{};":
            header += character
            start = end if not header.strip() else start
        depth += character == "{"
        is_body = character == "}" and "(" in _bare(header) and "=" not in header
        if depth == 0 and (character == ";" or is_body):
            yield _bare(header), text[start : end + 1].strip().count("\n") + 1 if is_body else 0
            header, start = "", end


def _bare(header: str) -> str:
    """Return a declaration without attributes and without macros, which are written in capitals."""
    nested = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
    return " ".join(re.sub(rf"\b(?:__attribute__|_Pragma|[A-Z][A-Z0-9_]*)\s*{nested}", " ", header).split())


def name_of(declaration: str) -> str:
    """Return the name that a declaration declares; empty for an anonymous type."""
    declarator = re.split(r"[=(\[]", declaration, maxsplit=1)[0].strip()
    if re.fullmatch(r"(?:struct|union|enum)(?:\s+\w+)?", declarator) or not declarator:
        return ""
    return re.findall(r"\w+", declarator)[-1]


def external_symbols(text: str, static_macros: frozenset[str] = frozenset()) -> list[str]:
    """Return the names that a C file exports to the linker; ``static_macros`` are macros that expand to static."""
    private = {"static", "typedef", "_Static_assert", *static_macros}
    names = []
    for header, _ in c_declarations(text):
        if header and not private & set(re.findall(r"\w+", header)[:1]):
            is_list = "(" not in header and "=" not in header
            names.extend(name_of(part) for part in (header.split(",") if is_list else [header]))
    return [name for name in names if name]

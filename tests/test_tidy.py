"""The house rules, each enforced by a test: layers, purity, sizes, words, links and commands.

Everything is read as text or as a syntax tree; nothing of the package is run but the import of
its public names. A failure lists every violation as ``path:line what``. The tables at the top are
the rules; STYLE.md gives the reasons.
"""

from __future__ import annotations

import ast
import functools
import importlib
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "freehold"

# What a part of the package may import of the others: imports point one way. A part is a folder of
# src/freehold, or one of its single files under the names given in PART_OF.
BASE = {"base"}
PURE = BASE | {"wire", "core", "roles"}
SHELL = PURE | {"store", "runtime"}
LAYERS = {
    "base": BASE,
    "wire": BASE | {"wire"},
    "core": BASE | {"wire", "core"},
    "roles": PURE,
    "store": BASE | {"wire", "core", "store"},
    "runtime": SHELL,
    "api": SHELL | {"api"},
    "observe": SHELL | {"api", "observe", "public"},
    "testing": SHELL | {"api", "observe", "testing", "public"},
    "public": BASE | {"api", "observe", "util", "public"},  # freehold/__init__.py
    "sim": PURE | {"store", "sim"},
    "cli": SHELL | {"api", "observe", "testing", "public", "shuffle", "dashboard", "deploy", "cli"},
    "deploy": SHELL | {"api", "observe", "public", "deploy"},
    # Libraries: programs like yours that happen to live here.
    "shuffle": {"public", "testing", "observe", "shuffle"},
    "util": {"public", "util"},
    "compat": {"public", "testing", "observe", "compat"},
    "dashboard": {"public", "testing", "observe", "dashboard"},
}
LIBRARIES = {"shuffle", "util", "compat", "dashboard"}
# Single files of src/freehold that are not simply "base" (ids, resources, ...); errors is a folder.
PART_OF = {"__init__": "public", "__main__": "cli", "testing": "testing", "errors": "base"}

# core and roles are functions of their inputs: time, chance and fresh ids are passed in.
IMPURE = set(
    """asyncio concurrent datetime fcntl io logging mmap multiprocessing os pathlib psutil queue
    random secrets select selectors shutil signal socket ssl subprocess sys tempfile threading
    time uuid""".split()
)
IMPURE_CALLS = {"open", "print", "input", "id"}  # id() differs between two equal runs

FILE_LINES = 600
FUNCTION_LINES = 60
COLUMNS = 100
LONG_FUNCTIONS = 12  # exceptions in the whole tree, each with `# long: reason` on its def line

MARKER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?!:\s*\w.{9,})")  # must say what is to be done
LONG = re.compile(r"#\s*long:\s*\w+")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^|`)make ([a-z][a-z-]*)", re.MULTILINE)
PRIVATE_PATH = re.compile(r"(?<![\w.*)])/(work|root)/")  # folders of one machine
ADDRESS = re.compile(r"https?://")


@functools.cache
def project_files() -> tuple[Path, ...]:
    """Every text file that is or would be committed; all files but caches where git cannot say."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
        paths = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        hidden = re.compile(r"/(\.(?!ci/)[^/]+|__pycache__|build|dist|[^/]+\.egg-info)/")
        paths = [
            p for p in ROOT.rglob("*") if not hidden.search("/" + str(p.relative_to(ROOT)) + "/")
        ]
    return tuple(sorted(p for p in paths if p.is_file() and b"\0" not in p.read_bytes()[:1024]))


def python_files(*folders: str) -> list[Path]:
    """Python files of the project, of the given top folders only where some are given."""
    found = [path for path in project_files() if path.suffix == ".py"]
    return [p for p in found if not folders or p.relative_to(ROOT).parts[0] in folders]


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def at(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def report(violations: list[str]) -> None:
    """Fail with the whole list: whoever mends one wants to see them all."""
    if violations:
        pytest.fail("\n".join(["", *violations]), pytrace=False)


# --- layers and purity --------------------------------------------------------------------------


def module_parts(path: Path) -> list[str]:
    """freehold/core/leasing.py -> ["freehold", "core", "leasing"]; a package is named by its
    folder."""
    parts = list(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def part_of(parts: list[str]) -> str:
    """The part of the package that a dotted name belongs to."""
    if len(parts) == 1:
        return "public"
    return parts[1] if parts[1] in LAYERS else PART_OF.get(parts[1], "base")


def imports(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, dotted name in pieces) of each import, also inside functions; relative ones made
    absolute.

    `from freehold import api` names freehold.api, but `from freehold import get` names
    freehold.get, which no file has: it is cut back to freehold."""
    here = module_parts(path)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = here if path.name == "__init__.py" else here[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            for alias in node.names:
                yield node.lineno, existing(base, alias.name)


def existing(base: list[str], name: str) -> list[str]:
    place = PACKAGE.parent.joinpath(*base, name)
    return [*base, name] if place.is_dir() or place.with_suffix(".py").is_file() else base


def public_names() -> set[str]:
    """What freehold/__init__.py lists in __all__, read without running it."""
    path = PACKAGE / "__init__.py"
    if not path.exists():
        return set()
    for node in tree(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            return set(ast.literal_eval(node.value))
    return set()


def test_imports_point_one_way() -> None:
    """Goal: the layers of DESIGN hold. Method: each import in src is looked up in LAYERS."""
    folders = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.glob("*/*.py")}
    unknown = folders - {*LAYERS, *PART_OF}
    violations = [f"src/freehold/{name} has no layer" for name in sorted(unknown)]
    for path in python_files("src"):
        part = part_of(module_parts(path))
        for line, name in imports(path):
            if name[0] == "freehold" and part_of(name) not in LAYERS[part]:
                violations.append(f"{at(path, line)} {part} may not import {'.'.join(name)}")
    report(violations)


def test_libraries_use_public_names_only() -> None:
    """Goal: shuffle, compat and dashboard could be somebody else's. Method: every name they take
    from ``freehold``, by `from freehold import x` or as `fh.x`, stands in its __all__."""
    if not public_names():
        pytest.skip("freehold/__init__.py has no public names yet")
    violations = []
    for path in python_files("src"):
        if part_of(module_parts(path)) in LIBRARIES:
            for line, name in names_taken(tree(path)):
                if name not in public_names() | {"observe", "testing"}:
                    violations.append(f"{at(path, line)} freehold.{name} is not public")
    report(violations)


def names_taken(module: ast.Module) -> Iterator[tuple[int, str]]:
    aliases = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module == "freehold" and not node.level:
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            aliases |= {a.asname or a.name for a in node.names if a.name == "freehold"}
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in aliases and not node.attr.startswith("__"):
                yield node.lineno, node.attr


def test_core_and_roles_are_pure() -> None:
    """Goal: a protocol runs without a socket and twice the same. Method: no impure import, no
    impure call."""
    violations = []
    for path in python_files("src"):
        if part_of(module_parts(path)) not in ("core", "roles"):
            continue
        for line, name in imports(path):
            if name[0] in IMPURE:
                violations.append(f"{at(path, line)} imports {name[0]}: pass it in through World")
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id in IMPURE_CALLS:
                    violations.append(f"{at(path, node.lineno)} calls {node.func.id}()")
    report(violations)


# --- sizes and words ----------------------------------------------------------------------------


def test_files_fit_in_a_head() -> None:
    """Goal: a file can be read at one sitting. Method: count its lines and its columns."""
    violations = []
    for path in python_files():
        lines = path.read_text().splitlines()
        if len(lines) > FILE_LINES:
            violations.append(f"{at(path, 1)} has {len(lines)} lines, the limit is {FILE_LINES}")
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS:
                violations.append(f"{at(path, number)} has {len(line)} columns, not {COLUMNS}")
    report(violations)


def test_functions_fit_on_a_screen() -> None:
    """Goal: a function can be seen whole. Method: count its lines, docstring included; an
    exception says `# long: reason` on its def line, and there are few."""
    violations, excused = [], []
    for path in python_files():
        lines = path.read_text().splitlines()
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            if size <= FUNCTION_LINES:
                continue
            story = f"{at(path, node.lineno)} {node.name} has {size} lines, not {FUNCTION_LINES}"
            (excused if LONG.search(lines[node.lineno - 1]) else violations).append(story)
    if len(excused) > LONG_FUNCTIONS:
        violations += [f"more than {LONG_FUNCTIONS} excused:", *excused]
    report(violations)


def test_package_files_open_with_a_docstring() -> None:
    """Goal: every file says what it is for. Method: it has a docstring, if it has anything."""
    files = [p for p in python_files("src") if tree(p).body and not ast.get_docstring(tree(p))]
    report([f"{at(path, 1)} has no docstring" for path in files])


def test_public_names_have_docstrings() -> None:
    """Goal: help(freehold.anything) helps. Method: import the package and read each name's own
    docstring."""
    if not public_names():
        pytest.skip("freehold/__init__.py has no public names yet")
    freehold = importlib.import_module("freehold")
    missing = [name for name in sorted(public_names()) if not hasattr(freehold, name)]
    undocumented = [
        name
        for name in sorted(public_names() - set(missing))
        if callable(value := getattr(freehold, name)) and not (value.__doc__ or "").strip()
    ]
    report(
        [f"freehold.{name} does not exist" for name in missing]
        + [f"freehold.{name} has no docstring" for name in undocumented]
    )


def test_what_is_to_be_done_is_said() -> None:
    """Goal: a note of work to do says which. Method: read comments only; at least ten characters
    follow."""
    violations = []
    for path in python_files():
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type == tokenize.COMMENT and MARKER.search(token.string):
                violations.append(f"{at(path, token.start[0])} {token.string}")
    report(violations)


# --- documents and commands ---------------------------------------------------------------------


def documents() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".md"]


def anchors(text: str) -> set[str]:
    """The link targets that headings make, by the usual rule: lower case, no marks, dashes for
    spaces."""
    headings = re.findall(r"^#+\s+(.*)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings
    }


def test_links_between_documents_resolve() -> None:
    """Goal: no dead end. Method: each relative link names a file that is part of the project (or
    a folder that holds one), and a heading in it where it names one."""
    files = set(project_files())
    places = files | {parent for path in files for parent in path.parents}
    violations = []
    for path in documents():
        text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        for link in LINK.findall(text):
            if re.match(r"\w+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            if target not in places:
                violations.append(f"{at(path, 1)} links to {link}, which does not exist")
            elif anchor and anchor not in anchors(target.read_text()):
                violations.append(f"{at(path, 1)} links to {link}, which has no such heading")
    report(violations)


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_commands_in_documents_exist() -> None:
    """Goal: what a document tells you to type works. Method: each `make x` is a target of the
    Makefile."""
    violations = []
    for path in documents():
        for command in COMMAND.findall(path.read_text()):
            if command not in makefile_targets():
                violations.append(f"{at(path, 1)} says `make {command}`, which does not exist")
    report(violations)


def test_every_folder_of_tests_is_run() -> None:
    """Goal: no test is forgotten. Method: each folder of tests/ stands in one of the Makefile's
    layers, and no test lies deeper than one folder, where the Makefile would not see it."""
    layers = re.findall(r"^[A-Z]+\s*:= ([a-z ]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {name for layer in layers for name in layer.split()}
    violations = []
    for path in python_files("tests"):
        folders = path.relative_to(ROOT / "tests").parts[:-1]
        if path.name.startswith("test_") and (len(folders) > 1 or not known.issuperset(folders)):
            violations.append(f"{at(path, 1)} is in no layer of `make test`")
    report(violations)


def test_nothing_names_a_private_place() -> None:
    """Goal: the project works anywhere. Method: no file names a folder of the machine it was
    written on, and no build file names an address to fetch from."""
    violations = []
    for path in project_files():
        build = path.name in ("Makefile", "pyproject.toml") or path.parent.name == ".ci"
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if PRIVATE_PATH.search(line):
                violations.append(f"{at(path, number)} names a private folder: {line.strip()}")
            if build and ADDRESS.search(line):
                violations.append(f"{at(path, number)} names an address: {line.strip()}")
    report(violations)

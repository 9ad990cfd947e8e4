"""The architecture's rules, checked on the source: imports go one way, and only some modules print."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "canaryaudit"
ORDER = (
    "errors",
    "lazy",
    "stats",
    "formatting",
    "progress",
    "environment",
    "records",
    "storage",
    "plan",
    "table_plan",
    "image_plan",
    "corpus",
    "distributed",
    "canaries",
    "models",
    "runs",
    "training",
    "exposure",
    "privacy",
    "report",
    "unlearning",
    "attacks",
    "images",
    "tabular",
    "pipeline",
    "cli",
)
"""A module, or a package's modules, may import only those before it; ``cli`` is last."""
OFFERING = ("", "records", "exposure", "exposure/estimators", "unlearning", "attacks", "images", "tabular", "report")
"""The packages whose ``__init__`` offers names; every other one is empty."""
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 500
MAX_PARAMETERS = 7
TESTS = PACKAGE.parent / "tests"
OTHER_TESTS = {"benchmarks", "docs", "golden", "reproduction", "robustness"}
"""Folders of tests that belong to no one package."""


def part_of(path: Path) -> str:
    """Return the architecture's name for a source file: ``exposure`` for exposure/exact.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


def imports(source: str, package: str = "canaryaudit") -> Iterator[str]:
    """Yield the dotted names of all modules that ``source`` imports, wherever in the file."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def package_of(path: Path) -> str:
    return ".".join(("canaryaudit", *path.relative_to(PACKAGE).parts[:-1]))


def prints(source: str) -> list[int]:
    """Return the lines that call ``print``."""
    calls = (node for node in ast.walk(parsed(source)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def violations(path: Path, source: str) -> list[str]:
    """Return what ``source`` imports from below its own place in the order."""
    own = part_of(path)
    allowed = ORDER[: ORDER.index(own) + 1]
    used = {name.split(".")[1] for name in imports(source, package_of(path)) if name.startswith("canaryaudit.")}
    return sorted((used & set(ORDER)) - set(allowed))


@cache
def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_module_has_a_place_in_the_order() -> None:
    assert [name_of(path) for path in SOURCES if part_of(path) not in (*ORDER, "__init__", "__main__")] == []


def test_imports_go_one_way() -> None:
    found = {name_of(path): violations(path, text_of(path)) for path in SOURCES if part_of(path) in ORDER}
    assert {name: below for name, below in found.items() if below} == {}


def test_only_the_command_line_and_the_report_print() -> None:
    found = {name_of(path): prints(text_of(path)) for path in SOURCES if part_of(path) not in ("cli", "report")}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_nothing_is_pickled() -> None:
    pickling = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
    found = {name_of(path): pickling & {name.split(".")[0] for name in imports(text_of(path))} for path in SOURCES}
    assert {name: modules for name, modules in found.items() if modules} == {}
    for call in ("torch.load(", "torch.save("):
        assert [name_of(path) for path in SOURCES if call in text_of(path)] == [], f"{call}...) pickles"


def test_no_library_writes_a_file_under_a_temporary_name_of_its_own() -> None:
    """After a kill nobody would know that file: safetensors' ``save_file`` has one."""
    assert [name_of(path) for path in SOURCES if "save_file(" in text_of(path)] == []


def test_modules_are_short_enough_to_be_read() -> None:
    lengths = {name_of(path): len(text_of(path).splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def long_functions(source: str) -> list[str]:
    """Return the functions that take more arguments than one can keep apart."""
    functions = (node for node in ast.walk(parsed(source)) if isinstance(node, ast.FunctionDef))
    counts = {
        node.name: len({own.arg for own in (*node.args.args, *node.args.kwonlyargs)} - {"self", "cls"})
        for node in functions
    }
    return [name for name, count in counts.items() if count > MAX_PARAMETERS]


def test_no_function_has_many_parameters() -> None:
    # In ``cli`` each parameter is a flag.
    found = {name_of(path): long_functions(text_of(path)) for path in SOURCES if part_of(path) != "cli"}
    assert {name: functions for name, functions in found.items() if functions} == {}


def test_tests_lie_in_the_folders_of_what_they_test() -> None:
    found = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")} - {Path()}
    assert [folder for folder in found if folder.parts[0] not in OTHER_TESTS and not (PACKAGE / folder).is_dir()] == []
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= {folder.parts[0] for folder in found}


def test_the_report_needs_neither_model_nor_torch() -> None:
    """A report is made from records alone, so that it can be made again without the model; estimators take arrays."""
    for path in PACKAGE.glob("report/**/*.py"):
        used = set(imports(text_of(path), package_of(path)))
        assert "torch" not in {name.split(".")[0] for name in used}, path
        allowed = {*ORDER[: ORDER.index("canaries") + 1], "report", "__version__"}
        names = {name for name in used if name.startswith("canaryaudit.")}
        names -= {name for name in names if name.startswith("canaryaudit.exposure.estimators.")}
        assert {name.split(".")[1] for name in names} <= allowed, path


def test_few_modules_lie_at_the_top_level() -> None:
    assert len([path for path in PACKAGE.glob("*.py") if not path.name.startswith("__")]) <= 10


def test_the_chain_of_imports_between_packages_is_short() -> None:
    """At most ten units from the command line to the last one that it leads to; tables stand on text's report."""
    graph: dict[str, set[str]] = {part: set() for part in ORDER}
    for path in SOURCES:
        if part_of(path) in ORDER:
            used = imports(text_of(path), package_of(path))
            graph[part_of(path)] |= {name.split(".")[1] for name in used if name.startswith("canaryaudit.")} & set(
                ORDER
            )
    lengths: dict[str, int] = {}
    for part in ORDER:  # every import leads to an earlier one
        lengths[part] = 1 + max((lengths[used] for used in graph[part] - {part}), default=0)
    assert max(lengths.values()) <= 10, lengths


def test_only_packages_that_offer_something_have_code_at_their_door() -> None:
    doors = {str(path.parent.relative_to(PACKAGE)).removeprefix("."): path for path in PACKAGE.rglob("__init__.py")}
    closed = [folder for folder in doors if folder not in OFFERING and not folder.startswith("report/charts")]
    assert [folder for folder in closed if text_of(doors[folder])] == []


def test_no_module_only_passes_on_what_others_define() -> None:
    for path in SOURCES:
        if path.name not in ("__init__.py", "__main__.py"):
            body = parsed(text_of(path)).body
            defined = [node for node in body if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)]
            assert defined, f"{name_of(path)} defines nothing of its own"


def test_the_rules_notice_what_they_forbid() -> None:
    corpus = PACKAGE / "corpus.py"
    assert violations(corpus, "from canaryaudit.canaries.insertion import x") == ["canaries"]
    assert violations(corpus, "from canaryaudit import cli, errors") == ["cli"]
    assert violations(corpus, "def f():\n    import canaryaudit.report.charts.base") == ["report"]
    html = PACKAGE / "report" / "formats" / "html.py"
    assert violations(html, "from ...pipeline import x") == ["pipeline"]
    assert violations(html, "from ..charts import x") == []
    assert prints("x = 1\nprint(x)") == [2]
    assert long_functions("def f(self, a, b, c, d, e, f, g): ...\ndef h(a, b, c, d, e, f, *, g, h): ...") == ["h"]

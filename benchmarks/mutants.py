"""Mutation testing of the modules that decide and count: how many small faults do their tests notice?

    python benchmarks/mutants.py                      a sample of each module; prints the survivors and the share noticed
    python benchmarks/mutants.py --only verdict -v    one module, with every mutant
    python benchmarks/mutants.py --per-module 0       all of them; takes hours

Why not mutmut or cosmic-ray: the package is a pytest plugin, loaded through its entry point before either could put its mutant in
place, and a mutant that runs the whole suite takes minutes. Here each mutant is written into a copy of the project and
sees only the tests that its module is mapped to, in a fork of a process that has imported the third parties.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Target:
    """A module, or some of its definitions, and the tests that hold it: the quickest first."""

    module: str
    tests: str
    only: str = ""
    """Names of the definitions; empty: all."""


TARGETS = (
    Target("guard/verdict", "guard/test_verdict.py guard/test_gates.py"),
    Target("guard/gates", "guard/test_verdict.py guard/test_gates.py grading/test_judge.py"),
    Target("guard/lockfile", "guard/test_lockfile.py"),
    Target("_util/stats", "_util/test_stats.py"),
    Target("completions/billing", "completions/test_billing.py completions/test_live_source.py"),
    Target("money/ledger", "money/test_ledger.py money/test_shared_spend.py"),
    Target("tuning/selection", "tuning/test_selection.py tuning/test_parts.py"),
    Target("grading/base", "grading/test_votes.py", "VOTES _WORD check_vote grade_answers _metrics _elect _medoid"),
    Target("grading/math/equality", "grading/test_equality.py"),
    Target(
        "suite/keys",
        "suite/test_thresholds.py",
        "SCORES RATES COSTS METRICS _KEY Threshold parse_threshold _limit",
    ),
)


_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any", "ceil": "floor", "floor": "ceil"}
_NOT_LOGIC = {"annotation", "returns", "decorator_list", "type_params"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One module with one fault."""

    line: int
    what: str
    source: str


def replacements(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST | None]:  # noqa: PLR0912 - one case a kind
    """What a node may be replaced with; None removes it."""
    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                changed = copy.copy(node)
                changed.ops = [*node.ops[:index], _COMPARED[type(operator)](), *node.ops[index + 1 :]]
                yield changed
        case ast.BinOp() | ast.AugAssign() if type(node.op) in _COMPUTED:
            changed_operation = copy.copy(node)
            changed_operation.op = _COMPUTED[type(node.op)]()
            yield changed_operation
            if isinstance(node, ast.AugAssign):
                yield ast.Pass()
        case ast.BoolOp():
            yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
            for index in range(len(node.values)):
                rest = [*node.values[:index], *node.values[index + 1 :]]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield ast.Constant(node.value + 1)
            if node.value:
                yield ast.Constant(node.value * 0.5)
        case ast.Constant(value=str()) if not isinstance(parent, (ast.Expr, ast.JoinedStr)):
            yield ast.Constant(node.value + "XX")
        case ast.IfExp():
            yield ast.IfExp(node.test, node.orelse, node.body)
            yield node.body
            yield node.orelse
        case ast.If() | ast.While():
            changed_branch = copy.copy(node)
            changed_branch.test = ast.UnaryOp(ast.Not(), node.test)
            yield changed_branch
        case ast.comprehension(ifs=[_, *_]):
            yield ast.comprehension(node.target, node.iter, [], node.is_async)
        case ast.Call(func=ast.Name() | ast.Attribute()):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if name in _CALLED:
                renamed = copy.deepcopy(node.func)
                setattr(renamed, "id" if isinstance(renamed, ast.Name) else "attr", _CALLED[name])
                yield ast.Call(renamed, node.args, node.keywords)
            for keyword in node.keywords if name in {"sorted", "min", "max", "sum"} else ():
                yield ast.Call(node.func, node.args, [other for other in node.keywords if other is not keyword])
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield ast.Pass()
        case ast.Return(value=ast.expr()) if not (isinstance(node.value, ast.Constant) and not node.value.value):
            yield ast.Return(ast.Constant(None))
        case ast.Continue():
            yield ast.Break()
        case _:
            return


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Each node that is logic: its parent, the field, its index in a list, and the node."""
    for field, value in ast.iter_fields(node):
        if field in _NOT_LOGIC:
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, (ast.Raise, ast.Import, ast.ImportFrom)):
                continue  # the words of a message are not mutated, whether it is raised is: by the branch around it
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) == "__all__":
                continue
            if isinstance(child, ast.AST):
                yield node, field, index, child
                yield from places(child)


def mutants(target: Target, source: str) -> list[Mutant]:
    """All mutants of a module, or of some of its definitions."""
    tree = ast.parse(source)
    chosen = set(target.only.split())
    if unknown := chosen.difference(*map(names_of, tree.body)):
        sys.exit(f"{target.module} defines no {', '.join(sorted(unknown))}: correct TARGETS")
    found = []
    for position, statement in enumerate(tree.body):
        if chosen and not chosen & names_of(statement):
            continue
        shell = ast.Module([statement])
        for above, field, within, node in places(shell):
            parent, index = (tree, position) if above is shell else (above, within)
            line = getattr(node, "lineno", getattr(parent, "lineno", 0))
            for new in replacements(node, parent):
                put(parent, field, index, new)
                what = f"{shorter(ast.unparse(node))}  ->  {shorter(ast.unparse(new)) if new else 'nothing'}"
                found.append(Mutant(line, what, ast.unparse(ast.fix_missing_locations(tree))))
                put(parent, field, index, node)
    return found


def names_of(statement: ast.stmt) -> set[str]:
    """What a statement at the top of a module defines."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def put(parent: ast.AST, field: str, index: int | None, node: ast.AST | None) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def shorter(text: str) -> str:
    line = text.splitlines()[0] if text else text
    return line if len(line) <= 90 else line[:87] + "..."


class Project:
    """A copy of the project in which one module at a time is replaced."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "project"
        ignored = shutil.ignore_patterns(".*", "__pycache__", "docs", "build", "dist", "site")
        shutil.copytree(ROOT, self.root, ignore=ignored)
        self.output = directory / "output"
        self._written = 0
        os.environ["PYTHONPATH"] = str(self.root)
        sys.path.insert(0, str(self.root))
        preload()

    def run(self, tests: str, bound: float) -> str:
        """``noticed``, ``survived`` or ``timed out``: what these tests say of the copy as it is."""
        child = os.fork()
        if child == 0:
            os.setsid()
            os._exit(run_tests(self.root, [f"tests/{name}" for name in tests.split()], self.output))
        end = time.monotonic() + bound
        while time.monotonic() < end:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return "survived" if os.waitstatus_to_exitcode(status) == 0 else "noticed"
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "timed out"

    def write(self, module: str, source: str) -> None:
        path = self.root / "pytest_llmtune" / f"{module}.py"
        path.write_text(source, encoding="utf-8")
        self._written += 1
        stamp = time.time() + 10 * self._written  # bytecode is found by size and second
        os.utime(path, (stamp, stamp))


def preload() -> None:
    """Import what every run needs, but nothing of the package: each fork imports it with its mutant."""
    import hypothesis
    import numpy
    import openai
    import pytest
    import scipy.stats
    import statsmodels.stats.proportion
    import vcr
    import yaml

    assert all((numpy, openai, pytest, scipy, statsmodels, vcr, yaml))
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # a failure is enough: it need not be made small
    hypothesis.settings.register_profile("mutants", phases=phases, database=None, derandomize=True, deadline=None)
    assert "pytest_llmtune" not in sys.modules


def run_tests(root: Path, tests: list[str], output: Path) -> int:
    """In the fork: the exit code of pytest."""
    import pytest

    os.chdir(root)
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    quiet = ["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    try:
        return int(pytest.main([*quiet, "--hypothesis-profile=mutants", *tests]))
    except BaseException as error:  # noqa: BLE001 - a mutant may raise anything while pytest starts
        print(error)
        return 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-module", type=int, default=30, help="mutants sampled of each module; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", default="", help="modules whose path holds this text")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every mutant, not only the survivors")
    parser.add_argument("--list", action="store_true", help="print the sampled mutants, run nothing")
    options = parser.parse_args()
    noticed = total = 0
    with tempfile.TemporaryDirectory() as directory:
        project = Project(Path(directory))
        for target in TARGETS:
            module = target.module
            if options.only not in module:
                continue
            source = (ROOT / "pytest_llmtune" / f"{module}.py").read_text(encoding="utf-8")
            every = mutants(target, source)
            size = min(options.per_module or len(every), len(every))
            chosen = random.Random(f"{options.seed} {module}").sample(every, size)
            chosen.sort(key=lambda mutant: mutant.line)
            if options.list:
                print(*(f"{module}:{mutant.line}  {mutant.what}" for mutant in chosen), sep="\n")
                continue
            start = time.monotonic()
            if project.run(target.tests, 600) != "survived":
                output = project.output.read_text(errors="replace")[-3000:]
                sys.exit(f"{module}: its tests fail without a mutant:\n{output}")
            bound = 20 + 10 * (time.monotonic() - start)
            found = 0
            for mutant in chosen:
                project.write(module, mutant.source)
                outcome = project.run(target.tests, bound)
                found += outcome != "survived"
                if options.verbose or outcome == "survived":
                    print(f"{outcome:9}  {module}:{mutant.line}  {mutant.what}", flush=True)
            project.write(module, source)
            seconds = time.monotonic() - start
            print(f"{module}: {found} of {len(chosen)} noticed ({len(every)} in all; {seconds:.0f} s)", flush=True)
            noticed, total = noticed + found, total + len(chosen)
    if total:
        print(f"noticed: {noticed} of {total}, {100 * noticed / total:.1f} %")


if __name__ == "__main__":
    main()

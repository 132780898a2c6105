"""Write the tables of docs/errors.md: every exit code and every message, read from the source.

A message is found wherever an error class of `seq2seq/run/errors.py` is instantiated; `<name>`
stands for a value that the program fills in.
"""

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
from seq2seq.cli.console import option_parser, run_script, table, write_text
from seq2seq.run import errors
from seq2seq.run.signals import EXIT_CODES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "errors.md"
STOPPED = sorted({75, *EXIT_CODES.values()})
LABELS = {"StoppedError": ", ".join(map(str, STOPPED)), "RepeatedError": "as before"}
KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.UserError)
}
PARTS = ("where", "what", "fix")

HEAD = "| Code | Message | What to do | Raised in |\n|---|---|---|---|\n"


@dataclass(frozen=True)
class Scope:
    """A function (None at module level), and the sources of its names."""

    tree: ast.Module
    function: ast.FunctionDef | None
    constants: dict[str, ast.expr]  # upper-case names of all modules

    def values(self, name: str, line: int) -> list[tuple[ast.expr, "Scope"]]:
        """Return the values that a name may have at a line: what was assigned to it last."""
        found: list[tuple[ast.expr, Scope]] = []
        for statement in _before(self.function.body if self.function else [], line):
            assigned = [value for node in ast.walk(statement) if (value := _assigned(node, name))]
            found = [*((value, self) for value in assigned), *found]
            if _assigned(statement, name):  # in any case
                break
        if not found and self.function and name in _parameters(self.function):
            # Arguments passed by callers in this module.
            place, own = _parameters(self.function).index(name), self.function
            for call, caller in calls(self.tree):
                if caller is not own and _called(call) == own.name != "__init__":
                    named = {word.arg: word.value for word in call.keywords}
                    values = [named[name]] if name in named else call.args[place : place + 1]
                    found += [(value, replace(self, function=caller)) for value in values]
        return found or ([(self.constants[name], self)] if name in self.constants else [])


def _before(block: Sequence[ast.stmt], line: int) -> Iterator[ast.AST]:
    """Yield what runs before a line, last first; of branches only the one that the line is in."""
    for statement in reversed(block):
        if (statement.end_lineno or line) < line:
            yield statement
        elif statement.lineno < line:
            for own in _blocks(statement):
                if own and own[0].lineno <= line <= (own[-1].end_lineno or line):
                    yield from _before(own, line)
            yield from (n for n in ast.iter_child_nodes(statement) if isinstance(n, ast.expr))


def _blocks(statement: ast.AST) -> Iterator[list[ast.stmt]]:
    """Yield the blocks of a compound statement."""
    for part in ("body", "orelse", "finalbody"):
        yield getattr(statement, part, [])
    for part in ("handlers", "cases"):
        for inner in getattr(statement, part, []):
            yield from _blocks(inner)


def _parameters(function: ast.FunctionDef) -> list[str]:
    given = [*function.args.args, *function.args.kwonlyargs]
    return [argument.arg for argument in given if argument.arg not in ("self", "cls")]


def _assigned(node: ast.AST, name: str) -> ast.expr | None:
    match node:
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
            pairs = list(zip(targets, values, strict=True))
        case ast.Assign(targets=[target], value=value) | ast.NamedExpr(target=target, value=value):
            pairs = [(target, value)]
        case _:
            pairs = []
    return next((v for t, v in pairs if isinstance(t, ast.Name) and t.id == name), None)


def texts(node: ast.expr, scope: Scope, depth: int = 0) -> list[str]:
    """Return the possible texts of an expression, with holes written as `<name>`."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return list(map("".join, product(*(texts(part, scope, depth) for part in parts))))
        case ast.Call() if found := _shell_texts(node, scope):
            return found
        case ast.IfExp(body=body, orelse=orelse):
            return [*texts(body, scope, depth), *texts(orelse, scope, depth)]
        case ast.FormattedValue(value=value, conversion=conversion):
            quote = "'" if conversion == ord("r") else ""
            return [f"{quote}{text}{quote}" for text in texts(value, scope, depth)]
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)) if depth < 4:
            values = scope.values(name, node.lineno)
            for inner in ast.walk(scope.tree) if isinstance(node, ast.Call) else ():
                if isinstance(inner, ast.FunctionDef) and inner.name == name:  # its return values
                    own = replace(scope, function=inner)
                    ends = [n for n in ast.walk(inner) if isinstance(n, ast.Return)]
                    values += [(end.value, own) for end in ends if end.value is not None]
            found = [text for value, own in values for text in texts(value, own, depth + 1)]
            if any(not re.fullmatch("<[^<>]*>", text) for text in found):
                return [text for text in dict.fromkeys(found) if text != "<None>"]
    return [f"<{hole(node)}>"]


def _shell_texts(call: ast.Call, scope: Scope) -> list[str]:
    """Return the possible texts of a call that makes a part of a command line; else none."""
    match call:
        case ast.Call(func=ast.Name(id="command"), args=words):  # as after an install
            return list(map(" ".join, product(["seq2seq"], *(texts(w, scope) for w in words))))
        case ast.Call(func=ast.Name(id="assignment"), args=[ast.Constant(value=str(key)), value]):
            return [f"{key}=<{hole(value)}>"]
        case ast.Call(func=ast.Attribute(attr="quote"), args=[text]):
            return texts(text, scope)
    return []


def hole(node: ast.AST) -> str:
    """Return the name of a hole: its expression without formatting."""
    match node:
        case ast.Call(func=ast.Name(id="len"), args=[inner]):
            return f"number of {hole(inner)}"
        case ast.Attribute(attr="__name__", value=ast.Call(args=[inner])):
            return f"type of {hole(inner)}"
        case ast.Attribute(attr="root"):
            return "run"
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.lstrip("_")
        case ast.Constant(value=value):
            return str(value)
        case ast.Call(func=ast.Name() | ast.Attribute(attr="join"), args=[*_, inner]):
            return hole(inner)
        case ast.Call(func=ast.Attribute(value=inner)):
            return hole(inner)
    inside = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return hole(inside[0]) if inside else ast.unparse(node)


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def calls(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.FunctionDef | None]]:
    """Yield every call with its enclosing function."""
    waiting: list[tuple[ast.AST, ast.FunctionDef | None]] = [(tree, None)]
    while waiting:
        node, function = waiting.pop()
        if isinstance(node, ast.Call):
            yield node, function
        inner = node if isinstance(node, ast.FunctionDef) else function
        waiting += [(child, inner) for child in ast.iter_child_nodes(node)]


def messages(sources: dict[str, str]) -> set[tuple[int, str, str, str, str]]:
    """Return code, module, class, message and fix of every error in the source."""
    # The classes of errors, also those that modules derive, and the constants in their messages.
    trees = {name: ast.parse(text) for name, text in sources.items()}
    constants: dict[str, ast.expr] = {}
    kinds: dict[Any, type[errors.UserError]] = dict(KINDS)
    for tree in trees.values():
        for node in tree.body:
            if isinstance(node, ast.Assign) and (name := ast.unparse(node.targets[0])).isupper():
                constants[name] = node.value
            if isinstance(node, ast.ClassDef) and node.bases:
                base = KINDS.get(ast.unparse(node.bases[0]), errors.UserError)
                inner = [c for c in ast.walk(node) if isinstance(c, ast.Call)]
                worded = [c for c in inner if ast.unparse(c.func) == "super().__init__"]
                if base is not errors.UserError:  # a subclass may define its own message
                    kinds |= dict.fromkeys(worded, base) if worded else {node.name: base}
    # Every call of one of them, with all texts that its arguments may have.
    found = set()
    for module, tree in trees.items():
        for call, function in calls(tree):
            kind = kinds.get(call) or kinds.get(_called(call))
            given = dict(zip(PARTS, call.args, strict=False))
            given |= {word.arg: word.value for word in call.keywords if word.arg in PARTS}
            if kind is not None and given.keys() == {*PARTS}:
                scope = Scope(tree, function, constants)
                where, what, fix = (texts(given[part], scope) for part in PARTS)
                for place, text in product(where, what):
                    message = f"{place}: {text.rstrip('.')}"
                    found.add((kind.exit_code, module, kind.__name__, message, " / ".join(fix)))
    return found


def page() -> str:
    """Return the whole page, with up-to-date tables."""
    paths = [ROOT / "train.py", *(ROOT / "seq2seq").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    sources = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text("utf-8")
        for path in sorted(paths)
        if path != Path(__file__).resolve()
    }
    rows = [
        (LABELS.get(kind, code), text, fix, module.removeprefix("seq2seq."))
        for code, module, kind, text, fix in sorted(messages(sources))
    ]
    tables = iter([f"{exit_codes()}\n", HEAD + "".join(map(_row, rows))])
    return re.sub(r"(^\|.*\n)+", lambda _: next(tables), PAGE.read_text("utf-8"), flags=re.M)


def _row(cells: tuple[object, ...]) -> str:
    # Not `table`: a longer message would change every line.
    code, text, fix, module = (str(c).replace("`", "'").replace("|", "\\|") for c in cells)
    fix = re.sub(r"(<[^<>]*>)", r"`\1`", fix)
    return f"| {code} | `{text}` | {fix} | {module.removesuffix('.__init__')} |\n"


def exit_codes() -> str:
    """Return a table of every exit code with its class and meaning."""
    saved = "All is saved, and `resume=RUN` goes on."
    rows = [
        (0, "", "Done; also training that ended by its own rule."),
        (1, "", "`check_authors_code.py`: the numbers do not agree."),
        (2, "", "argparse or Hydra does not know the option."),
    ]
    for code in STOPPED:
        names = [signal.name for signal, value in EXIT_CODES.items() if value == code]
        why = ", ".join([*names, "`trainer.max_minutes`"] if code == 75 else names)
        rows.append((code, "`StoppedError`", f"{why}. {saved}"))
    for name, kind in KINDS.items():
        meaning = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
        if kind is not errors.UserError and name not in LABELS:
            rows.append((kind.exit_code, f"`{name}`", meaning))
    rows.sort(key=lambda row: (row[0], not row[1], row[1]))
    return table(rows, ["Code", "Class", "Meaning"], style="github")


def main(argv: Sequence[str]) -> None:
    """Write the page."""
    option_parser(__doc__).parse_args(argv)
    write_text(PAGE, page())


if __name__ == "__main__":
    run_script(main)

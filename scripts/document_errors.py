"""Write docs/errors.md: every exit code and every message, read from the source.

A message is wherever an error class of `seq2seq/run/errors.py` is made; `<name>` stands for what
the program fills in.
"""

import argparse
import ast
import functools
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an install

from seq2seq.cli.console import output_stream, run_script
from seq2seq.run import errors
from seq2seq.run.signals import EXIT_CODES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "errors.md"
VARIES = 71  # of an error that takes the code of another
STOPPED = sorted({75, *EXIT_CODES.values()})
KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.UserError)
}
PARTS = ("where", "what", "fix")
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef

INTRO = """\
# Exit codes and messages

What a user can put right is one line on stderr, never a traceback:

    error: <file>[:<line>]: <what is wrong>. <what to do>

The exit code of `train.py` and of every script says of which kind it is. Both tables are made from
the source by `python scripts/document_errors.py`; a test fails while they are out of date.

| Code | Class | Meaning |
|---|---|---|
"""

AFTER_CODES = """
A signal that ends the process at once shows as 128 and its number: 137 is SIGKILL, also that of a
system without memory, 141 the quiet end of `decode.py RUN | head`; 130 and 143 while data is
prepared and in the scripts, where there is nothing to save. [More](reliability.md).

## Messages

By code, then by module. `<name>` stands for what the program fills in.

| Code | Message | What to do | Raised in |
|---|---|---|---|
"""

SAVED = "All is saved, and `resume=RUN` goes on."


@dataclass(frozen=True, order=True)
class Message:
    """One line of the table."""

    code: int
    module: str
    text: str
    fix: str


Place = tuple[tuple[ast.AST, str, int], ...]


@dataclass(frozen=True)
class Scope:
    """A function (None at the top of a module), the module, and constants of all modules."""

    module: str
    tree: ast.Module
    function: FUNCTIONS | None
    constants: dict[str, list[ast.expr]]

    def parameters(self) -> list[str]:
        """Return the names of the function's parameters, without self."""
        given = [*self.function.args.args, *self.function.args.kwonlyargs] if self.function else []
        return [argument.arg for argument in given if argument.arg not in ("self", "cls")]

    def values(self, name: str, before: ast.AST) -> list[ast.expr]:
        """Return what a name can be at a node."""
        paths = _paths(self.function) if self.function else {}
        site = paths.get(before, ())
        found: list[ast.expr] = []
        for node, path in paths.items():
            for value in _assigned(node, name):
                step, straight = _reaches(path, site)
                if straight:
                    found = []  # whatever it was before, it is this now
                if step:
                    found.append(value)
        own = [value for node in self.tree.body for value in _assigned(node, name)]
        return found or own or self.constants.get(name, [])

    def returned(self, name: str) -> list[tuple[ast.expr, "Scope"]]:
        """Return what a function of the module returns, with its scope."""
        for node in self.tree.body:
            if isinstance(node, FUNCTIONS) and node.name == name and node is not self.function:
                scope = replace(self, function=node)
                found = [n.value for n in ast.walk(node) if isinstance(n, ast.Return)]
                return [(value, scope) for value in found if value is not None]
        return []


@functools.cache
def _paths(function: FUNCTIONS) -> dict[ast.AST, Place]:
    """Return the way to every node: a step is a parent, its field and the index in it."""
    found: dict[ast.AST, Place] = {}
    waiting: list[tuple[ast.AST, Place]] = [(function, ())]
    while waiting:
        node, path = waiting.pop()
        found[node] = path
        for field, value in ast.iter_fields(node):
            children = value if isinstance(value, list) else [value]
            steps = [(c, (*path, (node, field, i))) for i, c in enumerate(children)]
            waiting += [(c, step) for c, step in steps if isinstance(c, ast.AST)]
    return dict(sorted(found.items(), key=lambda item: getattr(item[0], "lineno", 0)))


def _reaches(path: Place, site: Place) -> tuple[bool, bool]:
    """Whether a statement can run before a node, and whether it always does."""
    for depth, (a, b) in enumerate(zip(path, site, strict=False)):
        if a != b:
            in_turn = a[:2] == b[:2] and a[1] not in ("handlers", "cases") and a[2] < b[2]
            tried = (a[1], b[1]) == ("body", "handlers")
            return in_turn or tried, in_turn and depth == len(path) - 1
    return False, False


def _assigned(node: ast.AST, name: str) -> Iterator[ast.expr]:
    """Yield what a statement assigns to a name."""
    match node:
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)):
            pairs = list(zip(targets, values, strict=True))
        case ast.Assign(targets=[target], value=value):
            pairs = [(target, value)]
        case _:
            pairs = []
    yield from (value for t, value in pairs if isinstance(t, ast.Name) and t.id == name)


def wordings(node: ast.expr, scope: Scope, site: ast.AST) -> list[str]:
    """Return the texts that an expression can be at a node, holes written as `<name>`."""
    return _texts(node, scope, site) or [f"<{hole(node)}>"]


def _texts(node: ast.expr, scope: Scope, site: ast.AST) -> list[str]:
    """Return the texts that an expression can be; none where it is no more than a hole."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(texts) for texts in product(*(wordings(p, scope, site) for p in parts))]
        case ast.FormattedValue(value=ast.Call(func=ast.Name())):
            return []
        case ast.FormattedValue(value=value, conversion=conversion):
            quote = "'" if conversion == ord("r") else ""
            return [f"{quote}{text}{quote}" for text in wordings(value, scope, site)]
        case ast.IfExp(body=body, orelse=orelse):
            return [*_texts(body, scope, site), *_texts(orelse, scope, site)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            pairs = product(_texts(left, scope, site), _texts(right, scope, site))
            return [a + b for a, b in pairs]
        case ast.Call() | ast.Subscript() | ast.Name():
            return _looked_up(node, scope, site)
    return []


def _looked_up(node: ast.expr, scope: Scope, site: ast.AST) -> list[str]:
    """Follow a name, an entry of a dictionary or a call to where its text is written."""
    match node:
        case ast.Name(id=name):
            found = [t for value in scope.values(name, site) for t in _texts(value, scope, value)]
        case (
            ast.Subscript(value=ast.Name(id=name))
            | ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="get"))
        ):
            tables = [table for table in scope.values(name, site) if isinstance(table, ast.Dict)]
            values = [value for table in tables for value in table.values]
            values += node.args[1:] if tables and isinstance(node, ast.Call) else []
            found = [text for value in values for text in _texts(value, scope, site)]
        case ast.Call(func=ast.Name(id=name)):
            returned = scope.returned(name)
            found = [text for value, inner in returned for text in _texts(value, inner, value)]
        case _:
            found = []
    return list(dict.fromkeys(found))


def hole(node: ast.AST) -> str:
    """Name what is filled in: the expression without what only shapes it."""
    match node:
        case ast.Call(func=ast.Name(id="len" | "type" as what), args=[inner]):
            return f"{'number' if what == 'len' else 'type'} of {hole(inner)}"
        case ast.Attribute(attr="root"):
            return "run"
        case ast.Attribute(value=owner, attr=name) if _names(owner, name):
            return name.lstrip("_").removeprefix("st_")
        case ast.Name(id=name):
            return name
        case ast.Constant(value=value):
            return str(value)
        case ast.Call(func=ast.Name() | ast.Attribute(attr="join"), args=[*_, inner]):
            return hole(inner)
        case ast.Call(func=ast.Attribute(value=inner)) | ast.IfExp(body=inner):
            return hole(inner)
    inside = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return hole(inside[0]) if inside else ast.unparse(node)


def _names(owner: ast.expr, attribute: str) -> bool:
    """Whether an attribute says more than its owner: the name of a path is that path."""
    plain = attribute in ("name", "value", "path") or attribute.startswith("__")
    return not plain or (isinstance(owner, ast.Name) and owner.id == "self")


@dataclass(frozen=True)
class Made:
    """An error, where it is made and from which expressions."""

    scope: Scope
    call: ast.Call
    parts: dict[str, ast.expr]


class Sources:
    """All modules, and the error classes that they define."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.trees = {name: ast.parse(text) for name, text in texts.items()}
        self.codes = {name: kind.exit_code for name, kind in KINDS.items()}
        self.codes |= {name: VARIES for name, kind in KINDS.items() if _varies(kind)}
        self.codes["StoppedError"] = min(STOPPED)
        self.own_words: set[str] = set()
        self.constants: dict[str, list[ast.expr]] = {}
        for tree in self.trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    self._note(node)
                if (
                    isinstance(node, ast.Assign)
                    and (name := ast.unparse(node.targets[0])).isupper()
                ):
                    self.constants.setdefault(name, []).append(node.value)

    def _note(self, node: ast.ClassDef) -> None:
        """Remember a subclass, and whether it words its messages itself."""
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in self.codes:
                self.codes.setdefault(node.name, self.codes[base.id])
        words = [arg for call in ast.walk(node) for arg in _super_arguments(call)[1:]]
        if node.name in self.codes and not all(isinstance(arg, ast.Name) for arg in words):
            self.own_words.add(node.name)

    def scopes(self) -> Iterator[tuple[Scope, ast.Call, str | None]]:
        """Yield every call with the function and the class around it."""
        for module, tree in self.trees.items():
            waiting: list[tuple[ast.AST, FUNCTIONS | None, str | None]] = [(tree, None, None)]
            while waiting:
                node, function, owner = waiting.pop()
                if isinstance(node, ast.Call):
                    yield Scope(module, tree, function, self.constants), node, owner
                if isinstance(node, ast.ClassDef):
                    owner = node.name
                elif isinstance(node, FUNCTIONS):
                    function = node
                waiting += [(child, function, owner) for child in ast.iter_child_nodes(node)]

    def messages(self) -> Iterator[Message]:
        """Yield every message that some line can make."""
        calls = list(self.scopes())
        for scope, call, owner in calls:
            name = _called(call)
            if _super_arguments(call) and owner in self.own_words:
                yield from _worded(self.codes[owner], Made(scope, call, _arguments(call)))
            elif name in self.codes and name not in self.own_words:
                for made in _callers(Made(scope, call, _arguments(call)), calls):
                    yield from _worded(self.codes[name], made)


def _callers(made: Made, calls: Sequence[tuple[Scope, ast.Call, str | None]]) -> Iterator[Made]:
    """Where a function is handed the words of an error, go on to those who call it."""
    scope, parts = made.scope, made.parts
    parameters = scope.parameters()
    words = {key: node.id for key, node in parts.items() if isinstance(node, ast.Name)}
    handed = {k: name for k, name in words.items() if k != "where" and name in parameters}
    if not handed or scope.function is None:
        yield made
        return
    for caller, call, _ in calls:
        near = caller.module == scope.module or isinstance(call.func, ast.Name)
        if near and _called(call) == scope.function.name:
            given = _arguments(call, parameters)
            own: dict[str, ast.expr] = {}
            for key, node in parts.items():
                own[key] = ast.Constant(" / ".join(wordings(node, scope, made.call)))
            if isinstance(parts["where"], ast.Name):
                own["where"] = given.get(parts["where"].id, own["where"])
            own |= {key: given[name] for key, name in handed.items() if name in given}
            yield Made(caller, call, own)


def _worded(code: int, made: Made) -> Iterator[Message]:
    where, what, fix = (wordings(made.parts[key], made.scope, made.call) for key in PARTS)
    for place, text in product(where, what):
        yield Message(code, made.scope.module, f"{place}: {text.rstrip('.')}", " / ".join(fix))


def _super_arguments(call: ast.AST) -> list[ast.expr]:
    if not isinstance(call, ast.Call) or ast.unparse(call.func) != "super().__init__":
        return []
    return call.args if len(call.args) == len(PARTS) else []


def _called(call: ast.Call) -> str:
    """Return the name of a function or class, not of what merely logs an error."""
    match call.func:
        case ast.Attribute(value=ast.Name(id="log" | "logger")):
            return ""
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _arguments(call: ast.Call, names: Sequence[str] = PARTS) -> dict[str, ast.expr]:
    named = {word.arg: word.value for word in call.keywords if word.arg}
    return dict(zip(names, call.args, strict=False)) | named


def read_sources() -> dict[str, str]:
    """Return the text of every module by its name, as in `seq2seq.data.text`."""
    paths = [ROOT / "train.py", *(ROOT / "seq2seq").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text("utf-8")
        for path in sorted(paths)
        if path != Path(__file__).resolve()
    }


def page() -> str:
    """Return the whole document."""
    codes = "".join(f"| {code} | {name} | {text} |\n" for code, name, text in exit_codes())
    found = sorted(set(Sources(read_sources()).messages()))
    return INTRO + codes + AFTER_CODES + "".join(map(_row, found))


def exit_codes() -> list[tuple[int, str, str]]:
    """Return every code with its class and its meaning."""
    rows = [
        (0, "", "Done; also training that ended by its own rule."),
        (1, "", "`check_authors_code.py`: the numbers do not agree."),
        (2, "", "argparse or Hydra does not know the option."),
    ]
    rows += [(code, "`StoppedError`", f"{_why(code)}. {SAVED}") for code in STOPPED]
    for name, kind in KINDS.items():
        meaning = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
        if kind is not errors.UserError and not _varies(kind):
            rows.append((kind.exit_code, f"`{name}`", meaning))
    return sorted(rows, key=lambda row: (row[0], row[1] == "", row[1]))


def _varies(kind: type[errors.UserError]) -> bool:
    return "exit_code" in inspect.signature(kind).parameters


def _why(code: int) -> str:
    names = [signal.name for signal, value in EXIT_CODES.items() if value == code]
    return ", ".join([*names, "`trainer.max_minutes`"] if code == 75 else names)


def _row(message: Message) -> str:
    labels = {min(STOPPED): ", ".join(map(str, STOPPED)), VARIES: "as before"}
    text = f"{message.text}".replace("`", "'").replace("|", "\\|")
    fix = re.sub(r"(<[^<>]*>)", r"`\1`", message.fix.replace("`", "'")).replace("|", "\\|")
    module = message.module.removesuffix(".__init__").removeprefix("seq2seq.")
    return f"| {labels.get(message.code, message.code)} | `{text}` | {fix} | {module} |\n"


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with output_stream(PAGE) as file:
        file.write(page().encode())


if __name__ == "__main__":
    run_script(main)

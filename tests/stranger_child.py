"""Opens run directories with decode, evaluate and resume, and tells what that did.

Reads JSON lines `{"run": ..., "do": [...]}`, the first of a harmless run, and answers each with
`{"decode": [exit code, stderr], ..., "events": [...]}`. Events are audit events of the interpreter
that no run should raise: code from data, processes, the network, files written or read elsewhere.
"""

import io
import json
import logging
import os
import resource
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from runs import module_of, run_job  # noqa: E402

from seq2seq.cli import train  # noqa: E402
from seq2seq.cli.console import run_script  # noqa: E402

LIBRARIES = [sys.prefix, sys.base_prefix, str(ROOT), *sys.path]
LIBRARIES += ["/usr", "/etc", "/proc", "/sys", "/dev"]
LIBRARIES += [str(Path(name).resolve()) for name in LIBRARIES]
WRITES = {f"os.{name}" for name in ("remove", "rename", "mkdir", "rmdir", "link", "symlink")}
WRITES |= {f"os.{name}" for name in ("truncate", "chmod", "chown", "utime", "setxattr")}
NEVER = {"pickle.find_class", "subprocess.Popen", "ctypes.dlopen", "os.system", "os.exec"}
NEVER |= {f"os.{name}" for name in ("posix_spawn", "spawn", "fork", "forkpty", "putenv")}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

armed = False
inside = ""
events: list[str] = []


def at(path: object, descriptor: object = -1) -> str:
    """The place a path means, links in its folders followed."""
    if isinstance(path, int):
        return str(opened(path))
    place = Path(os.fsdecode(path))  # type: ignore[arg-type]
    if isinstance(descriptor, int) and descriptor >= 0:
        place = opened(descriptor) / place
    return str(place.parent.resolve() / place.name)


def opened(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def within(path: str, *roots: str) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)


def watch(event: str, args: tuple) -> None:
    global armed
    if not armed:
        return
    armed = False  # what follows raises events, too
    try:
        if event in NEVER or (event.startswith("socket.") and event != "socket.gethostname"):
            events.append(f"{event} {args!r}"[:200])
        elif event == "open":
            path, mode, flags = args
            writing = bool(flags & WRITING) if isinstance(flags, int) else "r" not in str(mode)
            # `rmtree` opens folders below one that is open, and the event does not say which.
            relative = not isinstance(path, int) and not Path(os.fsdecode(path)).is_absolute()
            if not isinstance(path, int) and not (relative and mode is None and not writing):
                place = at(path)
                if not within(place, inside) and (writing or not within(place, *LIBRARIES)):
                    events.append(f"open {place} {mode} {flags}")
        elif event in WRITES:
            descriptors = [arg for arg in args[1:] if isinstance(arg, int)]
            descriptor = descriptors[-1] if descriptors else -1
            names = args[:2] if event in ("os.rename", "os.link", "os.symlink") else args[:1]
            events.extend(
                f"{event} {at(name, descriptor)}"
                for name in names
                if not within(at(name, descriptor), inside)
            )
    finally:
        armed = True


def decode(run: str) -> None:
    script("decode", run, "threads=1")


def evaluate(run: str) -> None:
    script("evaluate", run, "threads=1")


def script(name: str, *args: str) -> None:
    sys.argv = [f"scripts/{name}.py", *args]
    SCRIPTS[name].main(args)


def lengths(run: str) -> None:
    script("evaluate", run, "--by-length", f"{run}/by_length.png")


def attention(run: str) -> None:
    script("evaluate", run, "--attention")


def resume(run: str, *stages: str) -> None:
    only = [f"stages=[{','.join(stages)}]"] if stages else []
    cfg, opened = train.reopen(Path(run), ["threads=1", *only])
    try:
        run_job(cfg, opened)
    finally:
        opened.unlock()


SCRIPTS = {name: module_of(name) for name in ("decode", "evaluate")}
ACTIONS = {
    "decode": decode,
    "evaluate": evaluate,
    "resume": resume,
    "lengths": lengths,
    "attention": attention,
    "resume evaluate": lambda run: resume(run, "evaluate"),
    "resume tokenize": lambda run: resume(run, "tokenize"),
}


def attempt(name: str, run: str) -> tuple[int, str, float]:
    """Do one thing with a run; return exit code, stderr and seconds."""
    global armed
    kept = sys.stdin, sys.stdout, sys.stderr
    reader, writer = os.pipe()
    os.write(writer, b"the cat sees the dog .\n")
    os.close(writer)
    sys.stdin = os.fdopen(reader, encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BytesIO())
    sys.stderr = errors = io.StringIO()
    logging.getLogger().handlers.clear()
    code, started = 0, time.monotonic()
    signal.alarm(60)  # a hang ends this process, and with it the test
    armed = True
    try:
        run_script(lambda _: ACTIONS[name](run))
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    finally:
        armed = False
        signal.alarm(0)
        sys.stdin.close()
        sys.stdin, sys.stdout, sys.stderr = kept
    return code, errors.getvalue(), time.monotonic() - started


def main() -> None:
    global inside
    sys.addaudithook(watch)
    for line in sys.stdin:
        task = json.loads(line)
        inside = str(Path(task["run"]).resolve())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer: dict[str, object] = {name: attempt(name, task["run"]) for name in task["do"]}
        answer["events"] = events[:20]
        answer["grown"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        foreign = [
            name
            for name, module in list(sys.modules.items())
            if within(str(getattr(module, "__file__", None)), inside)
        ]
        answer["imported"] = foreign
        events.clear()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Run directories as a stranger might hand them over, made from a good one.

Every one is forged through: sums, seals and origins are those of what it holds, so what stops it
is never a sum. `DIRECTORIES` maps a name to what is done to a copy, and `IGNORED` are those whose
trap nobody ever looks at.
"""

import io
import json
import os
import pickle
import shutil
import socket
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save

from seq2seq.run.checksums import MANIFEST, RECORDS, entry_of, entry_of_file, with_checksum
from seq2seq.run.directory import RunDir
from seq2seq.training.checkpoint import ORIGINS, origins

Trap = Callable[[Path, Path], None]
"""Changes a run; the second folder is outside of it, and nothing there may be touched."""


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, outside: Path) -> None:
        self.command = f"touch {outside}/CANARY"

    def __reduce__(self):
        return os.system, (self.command,)


# Forging ----------------------------------------------------------------------------------------


def small(run: Path) -> None:
    """Leave three test sentences of a run, so that trying it takes a second."""
    for name in ("corpus/test.source", "corpus/test.target", "decode/test.txt"):
        cut_lines(run / name, 3)
    cut_lines(run / "decode/test.jsonl", 3)
    (run / "decode/test.no_unknown.txt").unlink(missing_ok=True)
    config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    config["evaluate"]["heatmaps"] = [1]
    config["decode"]["forbid_unknown"] = True
    write_config(run, config)
    forge(run)


def cut_lines(path: Path, most: int) -> None:
    lines = path.read_bytes().split(b"\n")[:most]
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def write_config(run: Path, config: dict) -> None:
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100)
    (run / "config.yaml").write_text(text, encoding="utf-8")


def forge(run: Path) -> None:
    """Rewrite all that vouches for something: records, manifests, origins, copies of the config."""
    for report in filter(is_json, map(run.joinpath, RECORDS)):
        values = json.loads(report.read_bytes())
        names = [name for name in values["files"] if plain(run / name)]
        values["files"] = {name: entry_of((run / name).read_bytes()) for name in names}
        values.pop("sha256", None)
        report.write_text(json.dumps(with_checksum(values)), encoding="utf-8")
    reseal(run / "tokenizers")
    paths = [path for pattern in ORIGINS for path in run.glob(pattern) if plain(path)]
    sums = {str(p.relative_to(run)): entry_of(p.read_bytes())["sha256"] for p in paths}
    for folder in run.glob("checkpoints/update-*"):
        if (run / "config.yaml").is_file():
            shutil.copyfile(run / "config.yaml", folder / "config.yaml")
        reseal(folder, sums)


def plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def reseal(folder: Path, sums: dict[str, str] | None = None, **more: object) -> None:
    """Write a manifest that fits what a folder holds now."""
    path = folder / MANIFEST
    about = json.loads(path.read_bytes())["about"] | (sums or {}) if is_json(path) else {}
    files = {
        p.name: entry_of(p.read_bytes()) for p in sorted(folder.iterdir()) if p.name != MANIFEST
    }
    value = {"format": 2, "files": files | more, "about": about}
    path.write_text(json.dumps(with_checksum(value)), encoding="utf-8")


def steps(run: Path) -> list[Path]:
    return sorted(run.glob("checkpoints/update-*"))


# Kinds of traps ---------------------------------------------------------------------------------


def instead(name: str, content: Callable[[Path], bytes]) -> Trap:
    """Put other bytes in the place of a file; of the checkpoints, in all of them."""

    def trap(run: Path, outside: Path) -> None:
        found = sorted(run.glob(name)) or [run / name]
        for path in found:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(outside))
        if not name.endswith((MANIFEST, "config.yaml")):
            forge(run)

    return trap


def config(change: Callable[[dict, Path], None]) -> Trap:
    """Change the values of the config."""

    def trap(run: Path, outside: Path) -> None:
        values = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
        change(values, outside)
        write_config(run, values)
        forge(run)

    return trap


def text(added: str) -> Trap:
    """Add text to the config."""

    def trap(run: Path, outside: Path) -> None:
        with (run / "config.yaml").open("a", encoding="utf-8") as file:
            file.write(added.replace("OUTSIDE", str(outside)))
        forge(run)

    return trap


def link(name: str, to: str = "") -> Trap:
    """Put a link to something outside in the place of a file or folder."""

    def trap(run: Path, outside: Path) -> None:
        path = run / name
        target = outside / "folder" if not path.suffix or path.is_dir() else outside / "file"
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, outside / "folder", dirs_exist_ok=True)
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(to or target)

    return trap


def hard_link(name: str) -> Trap:
    def trap(run: Path, outside: Path) -> None:
        content = (run / name).read_bytes()
        (outside / "hard").write_bytes(content)
        (run / name).unlink()
        (run / name).hardlink_to(outside / "hard")

    return trap


def special(name: str, make: Callable[[Path], None]) -> Trap:
    def trap(run: Path, outside: Path) -> None:
        for path in sorted(run.glob(name)) or [run / name]:
            path.unlink(missing_ok=True)
            make(path)

    return trap


def tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Trap:
    """Change the weights of all checkpoints, averaged ones too."""

    def trap(run: Path, outside: Path) -> None:
        for folder in steps(run):
            for name in ("model.safetensors", "average.safetensors"):
                found = load_file(folder / name)
                change(found)
                (folder / name).write_bytes(save(found))
        forge(run)

    return trap


def make_socket(path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may have 108 bytes
    try:
        server.bind(path.name)
    finally:
        os.chdir(here)
        server.close()


def make_device(path: Path) -> None:
    """`/dev/zero`, which never ends; where only root may make one, a pipe."""
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
    except OSError:
        os.mkfifo(path)


# Content ----------------------------------------------------------------------------------------


def pickled(outside: Path) -> bytes:
    return pickle.dumps(Payload(outside))


def torch_file(outside: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": Payload(outside)}, buffer)
    return buffer.getvalue()


def object_array(outside: Path) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.array([Payload(outside)], dtype=object))
    return buffer.getvalue()


def script_archive(outside: Path) -> bytes:
    """What a TorchScript file looks like: a zip with code and a pickle."""
    files = {"m/code/__torch__.py": code(outside), "m/data.pkl": pickled(outside)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in (files | {"m/version": b"3\n"}).items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(outside: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(f"../../{outside.name}/CANARY")
        archive.addfile(entry, io.BytesIO(b""))
    return buffer.getvalue()


def code(outside: Path) -> bytes:
    return f"import os\nos.system('touch {outside}/CANARY')\n".encode()


def hydra_target(outside: Path) -> bytes:
    return f"_target_: os.system\n_args_: ['touch {outside}/CANARY']\n".encode()


def huge_header(_: Path) -> bytes:
    return struct.pack("<Q", 1 << 62) + b"{}"


# Values -----------------------------------------------------------------------------------------


def put(*keys: str, value: object) -> Trap:
    def change(values: dict, outside: Path) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = (
            value.replace("OUTSIDE", str(outside)) if isinstance(value, str) else value
        )

    return config(change)


def poison(found: dict[str, torch.Tensor]) -> None:
    first = sorted(found)[0]
    found[first] = torch.full_like(found[first], float("nan"))


def wider(found: dict[str, torch.Tensor]) -> None:
    for name in found:
        found[name] = found[name].double()


def climbing_manifest(run: Path, outside: Path) -> None:
    for folder in steps(run):
        reseal(folder, **{"../../../outside/file": entry_of_file(outside / "file")})


def climbing_report(run: Path, outside: Path) -> None:
    values = json.loads((run / "data_report.json").read_bytes())
    values["files"]["corpus/../../outside/file"] = entry_of_file(outside / "file")
    values.pop("sha256")
    (run / "data_report.json").write_text(json.dumps(with_checksum(values)), encoding="utf-8")
    forge_origins(run)


def forge_origins(run: Path) -> None:
    for folder in steps(run):
        reseal(folder, origins(RunDir(run)))


def best_of(step: object) -> Trap:
    def trap(run: Path, outside: Path) -> None:
        value = with_checksum({"update": step, "metric": "bleu", "value": 1.0})
        (run / "checkpoints/best.json").write_text(json.dumps(value), encoding="utf-8")

    return trap


def corpus_outside(run: Path, outside: Path) -> None:
    """Looks like a run that has not read its corpus yet, which stands elsewhere."""
    (run / "data_report.json").unlink()
    put("data", "train", value=[str(outside / "secret"), str(outside / "secret")])(run, outside)


def wild_ids(run: Path, outside: Path) -> None:
    for path in run.glob("tokens/*.ids"):
        size = path.stat().st_size // 4
        path.write_bytes(np.full(size, 10**9, np.int32).tobytes())
    state = "optimizer.safetensors"  # with training to do
    assert all((folder / state).exists() for folder in steps(run))
    put("trainer", "max_updates", value=10_000)(run, outside)


def terabyte(run: Path, outside: Path) -> None:
    with (run / "corpus/train.source").open("r+b") as file:
        file.truncate(1 << 40)


def deep_json(run: Path, outside: Path) -> None:
    (run / "data_report.json").write_bytes(b'{"files": ' * 50_000 + b"1" + b"}" * 50_000)


def state_of(**values: object) -> Trap:
    def trap(run: Path, outside: Path) -> None:
        for folder in steps(run):
            state = json.loads((folder / "state.json").read_bytes()) | values
            (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
        forge(run)

    return trap


WEIGHTS = "checkpoints/update-*/*.safetensors"

LINKED = ["config.yaml", "run.lock", "run.json", "train.log", "metrics.jsonl", "scores.json"]
LINKED += ["fidelity.md", "fidelity.json", "curves.png", "length_bleu.png", "length_bleu.json"]
LINKED += ["data_report.json", "decode/test.txt", "decode/test.jsonl", "checkpoints/best.json"]
LINKED += ["corpus/test.source", "tokenizers/source.model", "heatmaps/test-0001.png"]
LINKED += ["tensorboard", "checkpoints", "decode", "heatmaps", "corpus", "tokens", "tokenizers"]
LINKED += ["model", "crash"]
"""What a run reads or writes; folders too."""

DIRECTORIES: dict[str, Trap] = {
    # pickles, and what holds some, under every name that is read
    "pickle as config": instead("config.yaml", pickled),
    "pickle as run.json": instead("run.json", pickled),
    "pickle as report": instead("data_report.json", pickled),
    "pickle as source tokenizer": instead("tokenizers/source.model", pickled),
    "pickle as target tokenizer": instead("tokenizers/target.model", pickled),
    "pickle as tokenizers' manifest": instead("tokenizers/manifest.json", pickled),
    "pickle as best": instead("checkpoints/best.json", pickled),
    "pickle as weights": instead(WEIGHTS, pickled),
    "torch.save as weights": instead(WEIGHTS, torch_file),
    "object array as weights": instead(WEIGHTS, object_array),
    "TorchScript as weights": instead(WEIGHTS, script_archive),
    "tar as weights": instead(WEIGHTS, tarred),
    "python as weights": instead(WEIGHTS, code),
    "a huge header": instead(WEIGHTS, huge_header),
    "pickle as optimizer": instead("checkpoints/update-*/optimizer.safetensors", pickled),
    "pickle as state": instead("checkpoints/update-*/state.json", pickled),
    "pickle as manifest": instead("checkpoints/update-*/manifest.json", pickled),
    "pickle as source text": instead("corpus/test.source", pickled),
    "pickle as ids": instead("tokens/train.source.ids", pickled),
    "pickle as ends": instead("tokens/validation.target.ends", pickled),
    "pickle as translations": instead("decode/test.txt", pickled),
    "pickle as details": instead("decode/test.jsonl", pickled),
    "pickle as scores": instead("scores.json", pickled),
    "pickle as lengths": instead("length_bleu.json", pickled),
    "pickle as metrics": instead("metrics.jsonl", pickled),
    # configs that call
    "_target_": text("_target_: os.system\n_args_: ['touch OUTSIDE/CANARY']\n"),
    "_target_ in model": put("model", "_target_", value="torch.hub.load"),
    "_target_ in optimizer": put("optimizer", "_target_", value="logging.os.system"),
    "job_logging": text("hydra: {job_logging: {handlers: {a: {class: os.system}}}}\n"),
    "defaults": text("defaults: [OUTSIDE/file]\n"),
    "a python tag": text("x: !!python/object/apply:os.system ['touch OUTSIDE/CANARY']\n"),
    "an environment variable": text("x: ${oc.env:HOME}\n"),
    "an interpolated name": put("name", value="${oc.decode:'${seed}'}"),
    "aliases": text("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
    # values that reach out
    "a name that climbs": put("name", value="../../outside/x"),
    "an absolute name": put("name", value="OUTSIDE/x"),
    "a name that moves the cursor": put("name", value="\x1b[2J\nx"),
    "a font outside": put("evaluate", "heatmap_font", value="OUTSIDE/pipe"),
    "a tokenizer to fetch": put("evaluate", "bleu_tokenizer", value="flores200"),
    "a corpus outside": corpus_outside,
    "a huge layer": put("model", "hidden_size", value=900_000),
    "a layer beyond sizes": put("model", "hidden_size", value=10**30),
    "a million threads": put("threads", value=10**6),
    "a huge beam": put("decode", "beam_size", value=10**9),
    "a huge seed": put("seed", value=10**40),
    "half a language": put("data", "source_language", value="../../etc"),
    # links
    **{f"{name} is a link": link(name) for name in LINKED},
    "a link to /": link("heatmaps/all", "/"),
    "a loop": link("heatmaps/loop", "loop"),
    "a dangling link": link("train.log", "nowhere/at/all"),
    "a stale .tmp link": link(".tmp-1-x"),
    "a stale .trash link": link("checkpoints/.trash-1-update-00000001"),
    "a link among checkpoints": link("checkpoints/update-99999999"),
    "config is a hard link": hard_link("config.yaml"),
    "lock is a hard link": hard_link("run.lock"),
    "metrics is a hard link": hard_link("metrics.jsonl"),
    # what never ends
    "config is a pipe": special("config.yaml", os.mkfifo),
    "log is a pipe": special("train.log", os.mkfifo),
    "lock is a pipe": special("run.lock", os.mkfifo),
    "weights are pipes": special(WEIGHTS, os.mkfifo),
    "text is a socket": special("corpus/test.source", make_socket),
    "config is a device": special("config.yaml", make_device),
    "weights are devices": special(WEIGHTS, make_device),
    "a terabyte of nothing": terabyte,
    "deep JSON": deep_json,
    # names and numbers in manifests
    "a manifest that climbs": climbing_manifest,
    "a report that climbs": climbing_report,
    "a best far away": best_of(10**300),
    "a best that climbs": best_of("../../outside"),
    "ids of no word": wild_ids,
    "weights that are no numbers": tensors(poison),
    "weights of another kind": tensors(wider),
    "an epoch before the first": state_of(epoch=-1),
    "a state of words": state_of(batch="x"),
    "log is a folder": special("train.log", Path.mkdir),
    "metrics are a folder": special("metrics.jsonl", Path.mkdir),
}

BESIDE = {
    "checkpoints/model.pt": torch_file,
    "checkpoints/rng_state.pth": pickled,
    "torch.py": code,
    "sitecustomize.py": code,
    "hydra_plugins/trap.py": code,
    "tokenizers/__init__.py": code,
    ".hydra/config.yaml": hydra_target,
    ".hydra/hydra.yaml": hydra_target,
    "checkpoints/update-00000060/more.bin": pickled,
}


def beside(run: Path, outside: Path) -> None:
    """Put files where there were none, all at once: nobody asks for them."""
    for name, content in BESIDE.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content(outside))


DIRECTORIES["files that nobody reads"] = beside

IGNORED = {"files that nobody reads", "a font outside", "a best that climbs", "a best far away"}
"""What they hold is never used: such a run is a run."""

ASKED = {
    "pickle as translations": ("decode", "evaluate", "resume evaluate"),
    "pickle as details": ("decode", "evaluate", "resume evaluate"),
    "pickle as scores": ("decode", "attention", "resume tokenize"),
    "pickle as lengths": ("decode", "lengths", "resume tokenize"),
}
"""What reads the trap, where a whole resume would write the file anew."""

"""Models of the Hugging Face Hub, `hf:NAME` or `hf:NAME@REVISION`, as run directories.

`huggingface_hub` downloads them into its cache and, without a network, finds them there. Its cache
consists of links, which a run must not hold, so the files are copied beside it, below `HF_HOME`.
"""

import functools
import re
from pathlib import Path

from seq2seq.run.directory import RunDir
from seq2seq.run.errors import PlatformError, RunDirError
from seq2seq.run.naming import CONFIG

NAME = re.compile(r"hf:([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?")

_FILES = (CONFIG, "tokenizers/*", "checkpoints/*/*", "shortlist/*", "decode/flags.json")


@functools.cache
def fetched(name: str, revision: str | None) -> Path:
    """Return the directory of a model after downloading it, or finding it in the cache.

    Raises:
        PlatformError: no such model or revision, no access, or no network and not in the cache.
        RunDirError: it is not a model of ours.
    """
    from huggingface_hub import constants

    snapshot = _snapshot(name, revision)
    files = {
        path.relative_to(snapshot).as_posix(): path
        for pattern in _FILES
        for path in snapshot.glob(pattern)
    }
    if CONFIG not in files:
        fix = "Name a model written by export --format model."
        raise RunDirError(f"hf:{name}", f"holds no model of this program (no {CONFIG})", fix)
    copies = RunDir(Path(constants.HF_HOME) / "seq2seq")
    copy = copies.path(f"{name.replace('/', '--')}@{snapshot.name}")
    # A download that was interrupted and continued has more files than its copy.
    if any(not (copy / file).exists() for file in files):
        with copies.replace_tree(copy.name) as run:
            for file, path in files.items():
                run.write(file, path.read_bytes())
    return copy


def _snapshot(name: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    where = f"hf:{name}@{revision}" if revision else f"hf:{name}"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*_FILES]))
    except errors.RevisionNotFoundError:
        what = "the Hub has no such revision of this model"
        raise PlatformError(where, what, "Check the commit, tag or branch.") from None
    except errors.RepositoryNotFoundError:
        what = "does not exist on the Hub, or you may not read it"
        raise PlatformError(where, what, "Check the name, or log in.") from None
    except errors.LocalEntryNotFoundError:
        what = "is not in the cache, and the Hugging Face Hub cannot be reached"
        raise PlatformError(where, what, "Connect, or name a local directory.") from None
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        what = f"cannot be fetched from the Hugging Face Hub ({reason})"
        raise PlatformError(where, what, "Connect, or name a local directory.") from None

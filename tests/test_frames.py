"""How deep the first kernel call of an update lies under `train.py`."""

import os
import runpy
import sys
import traceback
from pathlib import Path
from types import FrameType

import pytest
from runs import ROOT, call

MOST = 10
"""Frames of ours: three doors (train.py, `main`, and `run_job`, which Hydra calls), six from
`run_stages` on, and the function of `seq2seq/kernels`.
"""

OURS = (str(ROOT / "train.py"), f"{ROOT / 'seq2seq'}{os.sep}")
KERNELS = f"{ROOT / 'seq2seq/kernels'}{os.sep}"
TRAINING = f"{ROOT / 'seq2seq/training'}{os.sep}"


@pytest.mark.e2e
@pytest.mark.parametrize("compiled", [True, False])
def test_few_frames_lead_from_train_to_the_first_kernel_call(tmp_path, compiled):
    changes = {} if compiled else {"CC": "/missing", "XDG_CACHE_HOME": str(tmp_path)}
    command = ["+experiment=debug", "run_dir=run", "logging.tensorboard=false", "threads=1"]
    done = call(Path(__file__), *command, cwd=tmp_path, **changes)
    assert done.returncode == 0, done.stderr.decode()
    stack = (tmp_path / "stack").read_text("utf-8").splitlines()
    assert stack[0].startswith(OURS[0])
    assert stack[-1].startswith(KERNELS)
    assert len(stack) <= MOST, "\n".join(stack)
    imported = (tmp_path / "modules").read_text("utf-8").split()
    assert "torch.optim" in imported
    assert "torch._dynamo" not in imported, "torch's compiler takes a second of each start"


def first_kernel_call(frame: FrameType, event: str, _argument: object) -> None:
    """A profiler that writes how training came to call a kernel, and ends the process there."""
    if event != "call" or not frame.f_code.co_filename.startswith(KERNELS):
        return
    frames = [f.f_code for f, _ in traceback.walk_stack(frame)][::-1]
    ours = [code for code in frames if code.co_filename.startswith(OURS)]
    if any(code.co_filename.startswith(TRAINING) for code in ours):  # not while building a model
        lines = [f"{code.co_filename} {code.co_qualname}\n" for code in ours]
        Path("stack").write_text("".join(lines), "utf-8")
        Path("modules").write_text("\n".join(sys.modules), "utf-8")
        os._exit(0)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.argv[0] = str(ROOT / "train.py")
    from seq2seq.training.trainer import Trainer

    fit = Trainer.fit

    def profiled(*arguments: object) -> object:
        sys.setprofile(first_kernel_call)  # from here on: it slows all of Python down
        return fit(*arguments)

    Trainer.fit = profiled
    runpy.run_path(sys.argv[0], run_name="__main__")
    sys.exit("no kernel was called")

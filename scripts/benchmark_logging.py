"""Measure what logging costs: train with all of it and with none, in turns, and compare medians.

    python train.py +experiment=quickstart stages=[tokenize] run_dir=outputs/logging
    python scripts/benchmark_logging.py outputs/logging trainer.max_updates=250

The run must not have been trained; what the trainings write in it is deleted again.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an install

from seq2seq.run.requirements import leave_if_too_old

if __name__ == "__main__":
    leave_if_too_old()

from seq2seq.cli.console import output_stream, run_script


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run directory, tokenized and not trained")
    parser.add_argument("overrides", nargs="*", help="trainer.max_updates=250 and the like")
    parser.add_argument("--repeats", type=int, default=5, help="trainings of each kind (5)")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = parse()
    import torch

    from bench.logging_cost import measure_logging
    from seq2seq.config.compose import RESUME_KEYS, load_run_config
    from seq2seq.run.directory import RunDir

    run = RunDir.open(args.run)
    cfg = load_run_config(run.path("config.yaml"), args.overrides, RESUME_KEYS)
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    run.lock()
    try:
        found = measure_logging(run, cfg, args.repeats)
    finally:
        run.unlock()
    with output_stream(None) as output:
        output.write(f"{found}\n".encode())


if __name__ == "__main__":
    run_script(main)

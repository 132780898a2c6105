"""Imported first by every script: works without an install, and refuses too old versions."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seq2seq.run.requirements import leave_if_too_old

leave_if_too_old()

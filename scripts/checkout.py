"""What every script imports first: it runs without an install, and an old version is one line."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seq2seq.run.requirements import leave_if_too_old

leave_if_too_old()

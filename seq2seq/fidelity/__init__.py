"""What a run does differently from the paper and from the authors' code, read from its config.

The paper is arXiv 1409.0473, the authors' code `experiments/nmt` of GroundHog. `point.py` says what
a point of comparison is, the files `of_*.py` list them, `report.py` makes the table.
"""

from seq2seq.fidelity.point import Outcome, Point
from seq2seq.fidelity.report import IRRELEVANT, POINTS, Report, compare

__all__ = ["IRRELEVANT", "POINTS", "Outcome", "Point", "Report", "compare"]

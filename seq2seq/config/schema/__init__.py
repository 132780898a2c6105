"""All settings, each defined once: type, default (the paper's value), range, meaning and source.

Classes of groups with options register themselves; extensions do the same.
"""

# ruff: noqa: F403
from seq2seq.config.schema.attention import *
from seq2seq.config.schema.cells import *
from seq2seq.config.schema.data import *
from seq2seq.config.schema.inference import *
from seq2seq.config.schema.model import *
from seq2seq.config.schema.objectives import *
from seq2seq.config.schema.placeholders import *
from seq2seq.config.schema.run import *
from seq2seq.config.schema.training import *
from seq2seq.config.schema.transformer import *

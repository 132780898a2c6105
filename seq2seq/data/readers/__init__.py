"""Readers of corpora, one per form; importing this package registers them."""

from seq2seq.data.readers import cmudict, embedded, files, hub, test_sets
from seq2seq.data.readers.place import Pairs, Place, reads, scan_pairs

__all__ = [
    "Pairs",
    "Place",
    "cmudict",
    "embedded",
    "files",
    "hub",
    "reads",
    "scan_pairs",
    "test_sets",
]

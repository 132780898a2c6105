"""Readers of corpora, one per form; importing this package registers them."""

from seq2seq.data.readers import cmudict, embedded, files, hub, test_sets  # noqa: F401
from seq2seq.data.readers.place import Pairs, Place, reads, scan_pairs

__all__ = ["Pairs", "Place", "reads", "scan_pairs"]

"""The authors' own code as witness: its weights in our model, its numbers beside ours.

`names.py` has the map of names, `reference.py` reads a file, `compare.py` computes and compares.
"""

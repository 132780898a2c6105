"""Progress bars of this process: `tqdm`."""

import threading

from tqdm import tqdm

# By itself it shares a lock with other processes. From Python 3.14 on such a lock has a process to
# watch over it, which imports from the current folder.
tqdm.set_lock(threading.RLock())

__all__ = ["tqdm"]

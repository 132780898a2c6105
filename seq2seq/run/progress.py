"""Progress bars of this process: `tqdm`."""

import threading

from tqdm import tqdm

# By default tqdm shares a lock with other processes. Since Python 3.14, such a lock starts a helper
# process, which imports from the current directory.
tqdm.set_lock(threading.RLock())

__all__ = ["tqdm"]

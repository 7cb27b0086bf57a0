"""How many files this process may hold open, and how to tell that it has reached the limit."""

from __future__ import annotations

import errno
import resource
from functools import lru_cache

RESERVED_DESCRIPTORS = 128
MAX_OPEN_FILES = 4096  # of all stores of a process; an open HDF5 file takes half a MB
WANTED_DESCRIPTORS = 65_536


@lru_cache(maxsize=1)
def open_files_allowed() -> int:
    """Raise the soft limit of descriptors as far as allowed; how many files all stores together may hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(WANTED_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < top:
        resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
        soft = top
    limit = MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft - RESERVED_DESCRIPTORS
    return max(16, min(MAX_OPEN_FILES, limit))


def is_descriptor_shortage(error: Exception) -> bool:
    """Whether an error says that no more files can be opened; h5py gives the number in its text only."""
    return getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE) or "Too many open files" in str(error)

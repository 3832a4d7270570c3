"""Git repositories: what may be asked for, the phase that fetches it, and what it left on disk.

Git runs only inside the sandbox, as the phase that `clone_phase` makes; nothing here starts a process.
"""

from __future__ import annotations

from adapters.git.checkout import Commit, NoCommit, TooLarge, is_folder, read_commit, read_file
from adapters.git.clone import CloneFailure, CloneFault, Remote, Revision, clone_failure, clone_phase
from adapters.git.names import Repository, check_branch, check_commit, normalise_repository

__all__ = [
    "CloneFailure",
    "CloneFault",
    "Commit",
    "NoCommit",
    "Remote",
    "Repository",
    "Revision",
    "TooLarge",
    "check_branch",
    "check_commit",
    "clone_failure",
    "clone_phase",
    "is_folder",
    "normalise_repository",
    "read_commit",
    "read_file",
]

"""The Hub: staging a repository as a folder, uploading it, verifying it."""

from selmem.hub.publishing import Publication, publish
from selmem.hub.staging import KINDS, Staged, stage
from selmem.hub.verification import Verification, verify

__all__ = ["KINDS", "Publication", "Staged", "Verification", "publish", "stage", "verify"]

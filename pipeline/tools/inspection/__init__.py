"""What files hold, which records in them are bad, and what is noted of them for a fast start."""

from pipeline.tools.inspection.contents import Held, Inspected, inspect
from pipeline.tools.inspection.fields import Field
from pipeline.tools.inspection.manifests import Noted, check_manifest, write_manifest
from pipeline.tools.inspection.verification import Bad, Verified, verify

__all__ = [
    "Bad",
    "Field",
    "Held",
    "Inspected",
    "Noted",
    "Verified",
    "check_manifest",
    "inspect",
    "verify",
    "write_manifest",
]

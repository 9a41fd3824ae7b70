"""Looking into files: what they hold, which records are bad, and manifests for a fast start.

Begin with contents.py (inspect), verification.py (verify) or manifests.py (manifest).
"""

from pipeline.tools.inspection.contents import Contents, SourceContents, inspect
from pipeline.tools.inspection.fields import Field
from pipeline.tools.inspection.manifests import ManifestReport, check_manifest, write_manifest
from pipeline.tools.inspection.verification import Bad, Verification, verify

__all__ = [
    "Bad",
    "Contents",
    "Field",
    "ManifestReport",
    "SourceContents",
    "Verification",
    "check_manifest",
    "inspect",
    "verify",
    "write_manifest",
]

"""The static scan: source bytes in, a verdict out. Pure: no I/O, never raises.

The scan is triage and policy, never the boundary: the microVM is.
"""

from mayfly.scan.engine import SCANNER_VERSION, scan, unparseable
from mayfly.scan.facts import ScanLanguage
from mayfly.scan.manifest import Manifest, parse_manifest
from mayfly.scan.policy import Policy, builtin_policy, parse_policy, policy_names

__all__ = [
    "SCANNER_VERSION",
    "Manifest",
    "Policy",
    "ScanLanguage",
    "builtin_policy",
    "parse_manifest",
    "parse_policy",
    "policy_names",
    "scan",
    "unparseable",
]

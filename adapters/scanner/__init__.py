"""The embedded project-risk scanner: rules over sentences, English and Spanish; no database, no network, no model.

`scan` is a pure function of its text and the shipped rules. It is honest about being rules: every finding names its
rule and the words that matched, and claims no confidence.
"""

from adapters.scanner.engine import (
    MAX_CHARACTERS,
    SCANNER_NAME,
    SCANNER_VERSION,
    Finding,
    Provenance,
    ScanReport,
    SeveritySource,
    scan,
)
from adapters.scanner.extraction import Extract, UnreadableFile, UnsupportedFile, extract
from adapters.scanner.rules import Category, InvalidRules, Ruleset, Severity, load_rules, shipped_rules

__all__ = [
    "MAX_CHARACTERS",
    "SCANNER_NAME",
    "SCANNER_VERSION",
    "Category",
    "Extract",
    "Finding",
    "InvalidRules",
    "Provenance",
    "Ruleset",
    "ScanReport",
    "Severity",
    "SeveritySource",
    "UnreadableFile",
    "UnsupportedFile",
    "extract",
    "load_rules",
    "scan",
    "shipped_rules",
]

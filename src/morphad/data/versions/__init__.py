"""Versions of a line's data: made once, named by their content, kept in DVC, recorded in a git data registry."""

from morphad.data.versions.comparing import Difference, compare
from morphad.data.versions.data_registry import list_versions
from morphad.data.versions.getting import get_version, read_version_manifest
from morphad.data.versions.identity import Address, DataVersion, current_version, find_address, parse_version
from morphad.data.versions.making import make_version

__all__ = [
    "Address",
    "DataVersion",
    "Difference",
    "compare",
    "current_version",
    "find_address",
    "get_version",
    "list_versions",
    "make_version",
    "parse_version",
    "read_version_manifest",
]

"""The command line's tools for files: convert, inspect, verify, manifest.

Begin with commands/, one file for each command. convert/ writes files; inspection/ reads them.
"""

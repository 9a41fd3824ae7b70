"""What the command line does with files: convert, inspect, verify, manifest.

Begin with commands/.
"""

"""What the command line does with files: convert, inspect, verify, manifest.

Begin with commands/, one file each. convert/ writes files; inspection/ looks at them.
"""

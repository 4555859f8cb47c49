"""Command line: one module a command, grouped under ``recinet``.

Importing a command imports click and nothing else, so that ``--help`` answers at once.
"""

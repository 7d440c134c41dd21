"""Chat templates run apart: programs of somebody else, in a process of their own, with bounded time and memory.

provenance.py   strings that know which of their characters a user wrote
sandbox.py      the Jinja environment that templates run in
worker.py       the process that renders; it imports nothing of sublayer but these files
process.py      that process, seen from here

The worker starts in a tenth of a second because it imports jinja2 alone. These files therefore import one another by
relative names and nothing else of the package.
"""

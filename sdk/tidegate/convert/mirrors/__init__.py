"""What the manifest says, written into the places where other tools look for it, and read back.

The manifest stays the record: tools drop metadata inside model files. A mirror says which release a stray file came
from, and lets a tool that knows nothing of bundles show names, labels and rates.
"""

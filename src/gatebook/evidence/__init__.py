"""Bundles of evidence: a range of the log in one file, which proves itself anywhere.

archive.py    the zip: written the same way each time, read with suspicion
manifest.py   what a bundle says it is: claims, believed nowhere; pure
interval.py   a range of time -> entries, and which of their records are asked for
pin.py        the checkpoint that a range is proven by, the same one each time
tree.py       the signed tree, out of the tiles that are in a bundle
examine.py    recomputes all of a bundle: what is proven, what is missing; pure but for reading
tally.py      counts over disclosed records, for people; pure
report.py     those, as a page of HTML; pure
bundle.py     makes a bundle of a ledger
check.py      verifies a bundle that was handed over
"""

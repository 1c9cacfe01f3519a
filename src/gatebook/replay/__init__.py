"""Recorded decisions, judged again under another policy. Nothing is enforced, and nothing is written.

known.py     a decision record -> what is known of its request, and what is not; pure
judge.py     that -> what the other policy says, or that it cannot be known; pure
tally.py     many of these -> counts, and the newest that differ; pure
"""

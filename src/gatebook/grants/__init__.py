"""Grants that have ended: counted, and completed on record. What a grant is, `identity.grant` says."""

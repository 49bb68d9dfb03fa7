"""The neutral keyholder: which sums are decrypted, and what becomes of the keys."""

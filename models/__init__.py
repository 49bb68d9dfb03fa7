"""Staging models over partially present modalities; a leaf package."""

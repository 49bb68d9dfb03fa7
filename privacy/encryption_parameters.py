"""CKKS and packing parameters: placeholder fields, replaced by the parameter chooser."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EncryptionParameters:
    """One frozen choice of ring, moduli, scale and packing."""

    poly_modulus_degree: int
    coeff_mod_bits: tuple[int, ...]
    scale_bits: int
    sites: int
    levels: int
    fields_per_slot: int

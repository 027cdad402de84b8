"""Bounds of times and speeds that a course file may state, so that sums and quotients of them stay finite."""

from __future__ import annotations

from attrs import validators

from fscore.component import Validator, between, ge, gt

MOST = 1e12
"""The largest number of seconds, milliseconds, kbit/s: 31,700 years where it is seconds."""
NOT_NEGATIVE: Validator = validators.and_(ge(0), between(0, MOST))
POSITIVE: Validator = validators.and_(gt(0), between(1e-9, MOST))

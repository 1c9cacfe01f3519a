"""What all tests share: Hypothesis takes no slow machine for a fault. What a test sets itself goes before this."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("gatebook", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gatebook")

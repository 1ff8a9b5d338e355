"""Hypothesis for the unit tests: no deadline, because a slow machine is no failure."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "unit", deadline=None, suppress_health_check=[HealthCheck.too_slow], report_multiple_bugs=False, print_blob=True
)
settings.load_profile("unit")

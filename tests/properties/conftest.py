"""How hard hypothesis looks: HYPOTHESIS_PROFILE=thorough for long, =sample with the JIT switched off."""

import os

from hypothesis import HealthCheck, settings
from schedules import some

common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("quick", max_examples=some(150), print_blob=True, **common)
settings.register_profile("sample", max_examples=5, **common)
settings.register_profile("thorough", max_examples=3000, print_blob=True, **common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

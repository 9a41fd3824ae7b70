"""What every test leaves behind: nothing."""

from hypothesis import HealthCheck, settings

# deadlines measure the machine, not the code; the database would be a leftover
settings.register_profile(
    "lockstep",
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("lockstep")

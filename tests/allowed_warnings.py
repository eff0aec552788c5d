"""The warnings that tests let pass; every other one is an error.

Each with the release that was seen to warn and when; the list is looked through with every change
of the ranges in requirements.txt.
"""

# ml_collections 1.1.0, November 2026: reads config files through a loader that Python will drop.
CONFIG_FILES = "ignore:the load_module:DeprecationWarning"

# Orbax 0.12.8, November 2026: its threads now and then leave an exception of no object: without
# type and trace, or since tensorstore reports to an event loop that Orbax has closed already.
ORBAX_THREADS = tuple(
    f"ignore:{text}:pytest.PytestUnraisableExceptionWarning"
    for text in ("Exception ignored in. None$", "(?s)Exception ignored in. None.*loop is closed")
)

# Of Python, for the processes that tests start.
STRICT = ("-W", "error", "-W", CONFIG_FILES)

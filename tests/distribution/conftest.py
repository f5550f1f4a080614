"""Programs that the tests start in processes of their own; importing one would train."""

from __future__ import annotations

collect_ignore = ["mirrored.py", "mirrored_numbers.py", "servers.py", "worker.py"]

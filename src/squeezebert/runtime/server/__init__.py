"""An exported folder as a service over HTTP: it needs the `[server]` extra, and no torch.

Read in this order: `limits.py` (what a request may ask), `service.py` (the queue and its workers), `gate.py` (bodies
and time limits), `application.py` (the routes), `running.py` (port and signals).
"""

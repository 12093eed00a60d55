"""Assert on the JSON that the demo writes: what the README promises of it. Usage: check_demo.py demo.json"""

import json
import sys
from pathlib import Path

record = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
rows = {(row["model"], row["precision"]): row for row in record["rows"]}
assert len(rows) == 8, sorted(rows)
for check in record["checks"]:
    assert check["holds"], check
for row in rows.values():
    assert set(row["latency"]) == {"32", "128"}, row
    assert all(timing["median_ms"] > 0 for timing in row["latency"].values()), row
measured = [row for row in rows.values() if row["accuracy"] is not None]
assert len(measured) == 4, measured
for row in measured:
    low, high = row["interval"]
    assert 0.85 < low < row["accuracy"] < high <= 1, row
student = rows["MiniLM-L6, squeezed", "int8"]
assert student["megabytes"] < 25, student
assert len(record["examples"]) == 3, record["examples"]
assert record["seconds"] < 900, record["seconds"]  # three minutes on a quick machine of two cores, six on a slow one
assert record["peak_memory_mb"] < 4096, record["peak_memory_mb"]
page = Path(sys.argv[1]).with_name("report.html").read_text(encoding="utf-8")
assert "<svg" in page and "<script" not in page
print(f"demo: {len(rows)} files measured in {record['seconds']} s, {record['peak_memory_mb']} MB: all checks hold")

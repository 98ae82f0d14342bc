"""Cases, peers and measuring: what `gladient bench` and the scripts in benchmarks/ share."""

from gladient.bench.cases import CASES, Case
from gladient.bench.measuring import Result, Row, measure
from gladient.bench.table import as_json, table

__all__ = ["CASES", "Case", "Result", "Row", "measure", "table", "as_json"]

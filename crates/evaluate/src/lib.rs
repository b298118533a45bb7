//! Evidence: plans, metrics, intervals, records, the report.

"""The made-up rows and audits of the report's tests, for those who read and write their files."""

from tests.report.conftest import make_audit_json, make_row, put, put_audit, put_rows, put_run  # noqa: F401

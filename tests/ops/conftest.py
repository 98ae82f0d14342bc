"""Here so that tests in folders below find `ops_cases`."""

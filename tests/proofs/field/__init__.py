"""The field report, row by row: inputs of users that once failed, and what happens to them today. `make prove-field`."""

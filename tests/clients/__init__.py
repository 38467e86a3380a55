"""The service asked by the client libraries of other services, unchanged: `make prove-clients` installs and runs them."""

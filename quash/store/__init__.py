"""PostgreSQL, the record of status: migrations, roles, one module per aggregate, readers of news, leases."""

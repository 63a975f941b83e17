-- The login for a service behind PgBouncer. What the service sets on a direct connection, its role and its timeouts, the
-- login has from the start, because sessions behind PgBouncer belong to nobody. Run it as the owner, after
-- `orders-api migrate` made the role orders_app; then give the login a password (psql: \password orders_service).
CREATE ROLE orders_service LOGIN IN ROLE orders_app;
ALTER ROLE orders_service SET statement_timeout = '5s';
ALTER ROLE orders_service SET lock_timeout = '1s';
ALTER ROLE orders_service SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE orders_service SET client_connection_check_interval = '500ms';
ALTER ROLE orders_service SET timezone = 'UTC';

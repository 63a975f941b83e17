-- When each secret was first seen, by a salted fingerprint, so that `orders-api keys` can tell their ages.

CREATE TABLE secret_sightings (
    setting text NOT NULL,
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 16),
    first_seen_at timestamptz NOT NULL,
    PRIMARY KEY (setting, fingerprint)
);

-- The salt of all of them, this database's own.
INSERT INTO secret_sightings (setting, fingerprint, first_seen_at)
VALUES ('salt', uuid_send(gen_random_uuid()), now());

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'orders_app') THEN
        GRANT SELECT, INSERT ON secret_sightings TO orders_app;
        -- What was seen, was.
        REVOKE UPDATE, DELETE ON secret_sightings FROM orders_app;
    END IF;
END
$$;

-- Users, their sessions and their event counters. Every user-owned table's primary key begins with user_id.

CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
    -- What two spellings of one address have in common: NFKC, case-folded, the domain in ASCII.
    email_key text NOT NULL UNIQUE CHECK (length(email_key) BETWEEN 3 AND 1000),
    password_hash text NOT NULL CHECK (length(password_hash) = 60),
    created_at timestamptz NOT NULL
);

-- The last number of a user's change feed; taken as the last statement before COMMIT.
CREATE TABLE feeds (
    user_id uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    last_sequence bigint NOT NULL DEFAULT 0 CHECK (last_sequence >= 0)
);

CREATE TABLE sessions (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (user_id, id)
);

CREATE TABLE refresh_tokens (
    user_id uuid NOT NULL,
    token_hash bytea NOT NULL CHECK (octet_length(token_hash) = 32),
    session_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CHECK (expires_at > created_at),
    spent_at timestamptz,
    PRIMARY KEY (user_id, token_hash),
    FOREIGN KEY (user_id, session_id) REFERENCES sessions ON DELETE CASCADE
);
CREATE INDEX refresh_tokens_session ON refresh_tokens (user_id, session_id);
CREATE INDEX refresh_tokens_expires_at ON refresh_tokens (expires_at);

-- The lockout's state: one row an email, whether or not it has an account. `pending` maps the id of each attempt
-- whose password is being checked to the time it began.
CREATE TABLE login_attempts (
    email_hash bytea PRIMARY KEY CHECK (octet_length(email_hash) = 32),
    failed_at timestamptz[] NOT NULL DEFAULT '{}' CHECK (cardinality(failed_at) < 5),
    pending jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(pending) = 'object'),
    locked_until timestamptz,
    updated_at timestamptz NOT NULL
);
CREATE INDEX login_attempts_updated_at ON login_attempts (updated_at);

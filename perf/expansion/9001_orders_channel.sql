-- What a next release would expand the schema by; perf/upgrade.py applies it under load. A constant default rewrites nothing.
ALTER TABLE orders ADD COLUMN channel text NOT NULL DEFAULT 'web';

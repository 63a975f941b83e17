"""What becomes of an attempt whose email changed while its password was being checked."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.accounts.people import WRONG, hash_of, log_in, new_email
from tests.client import Client, assert_problem
from tests.conftest import serving

STALE = """jsonb_build_object('a', now() - interval '30 seconds', 'b', now() - interval '31 seconds',
    'c', now() - interval '32 seconds')"""


@pytest.fixture(scope="module")
def slow(databases, memcached):
    """A server that takes its time to check a password."""
    for serve in serving(databases, memcached):
        yield serve(BCRYPT_ROUNDS="11", WEB_CONCURRENCY="1")


@pytest.fixture
def stranger(slow):
    client = Client(slow.url, new_email())
    yield client
    client.close()


@pytest.fixture
def fail_while(stranger, slow, connect):
    """A wrong password; while it is being checked, this becomes of the email's row, which is returned as it is then."""
    sql = connect(slow)
    read = "SELECT cardinality(failed_at), pending, locked_until > now() FROM login_attempts WHERE email_hash = %s"

    def fail(change):
        update = f"UPDATE login_attempts SET {change} WHERE email_hash = %s AND pending <> '{{}}'"
        for _ in range(20):  # who comes too late tries again with another email
            stranger.email = new_email()
            row, done = [hash_of(stranger.email)], False
            with ThreadPoolExecutor(1) as threads:
                attempt = threads.submit(log_in, stranger, WRONG)
                while not done and not attempt.done():
                    done = sql.execute(update, row).rowcount == 1
                assert attempt.result().status_code == 401
            if done:
                return sql.execute(read, row).fetchone()
        raise AssertionError("no password was seen while it was being checked")

    return fail


def test_a_failure_while_the_email_was_locked_adds_nothing_to_the_count(fail_while):
    assert fail_while("locked_until = now() + interval '15 minutes'") == (0, {}, True)


def test_a_failure_that_was_counted_already_is_not_counted_again(fail_while):
    assert fail_while("pending = '{}', failed_at = ARRAY[now()]") == (1, {}, None)


def test_attempts_of_a_process_that_was_killed_meanwhile_are_counted_once(fail_while, stranger):
    assert fail_while(f"pending = pending || {STALE}") == (4, {}, None)
    assert log_in(stranger, WRONG).status_code == 401
    assert_problem(log_in(stranger, WRONG), 429, "account_locked")

"""Whether a queue stands, and how quickly it moves: a burst is absorbed, a standing queue is kept short.

CoDel for requests, after Ben Maurer, "Fail at Scale", ACM Queue 13(8), 2015; Nichols and Jacobson, RFC 8289.
"""

# A queue stands when in all of STANDING_S somebody in it was late; it has gone when in all of CALM_S nobody was.
LATE_S = 0.1
STANDING_S = 0.6
CALM_S = 0.3
PACE_S = 0.25  # over which the pace is measured


class Backlog:
    """One queue's. All times are by one clock, in seconds."""

    def __init__(self) -> None:
        self.stands = False
        self.pace = 0.0  # places a second
        self._late_since: float | None = None
        self._late_at = 0.0
        self._given = 0
        self._given_since = 0.0

    def gave_place(self) -> None:
        self._given += 1

    def was_late(self, now: float) -> None:
        """Somebody is, or would have been had it come in."""
        self._late_at = now

    def look(self, now: float, oldest: float) -> None:
        """Call when a place is given back. `oldest`: since when the one waits that waits longest."""
        if now - self._given_since >= PACE_S:
            self.pace = self._given / (now - self._given_since)
            self._given, self._given_since = 0, now
        if now - oldest > LATE_S:
            self.was_late(now)
            if self._late_since is None:
                self._late_since = oldest + LATE_S
            self.stands = self.stands or now - self._late_since >= STANDING_S
        elif not self.stands or now - self._late_at > CALM_S:
            self.stands, self._late_since = False, None

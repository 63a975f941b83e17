"""Takes what is left of a share of a processor when a generator has taken its own: `python -m perf.burden PID SHARE`.

A generator that sends less leaves more of a shared machine to the service. Where what comes in has to be the only
difference, both are to take the same; in earnest the clients have machines of their own. Ends with the generator.
"""

import sys
import time
from contextlib import suppress
from pathlib import Path

from perf.traffic import go_first

SLICE_S = 0.005


def main() -> None:
    generator, share = int(sys.argv[1]), float(sys.argv[2])
    go_first()
    with suppress(FileNotFoundError, ProcessLookupError):  # it is over
        began, before = time.monotonic(), _taken(generator)
        while True:
            left = share * (time.monotonic() - began) - (_taken(generator) - before)
            _burn(min(left, SLICE_S))
            time.sleep(SLICE_S)


def _taken(generator: int) -> float:
    """Seconds of a processor, by the generator's only thread and by this process."""
    nanoseconds = Path(f"/proc/{generator}/schedstat").read_text().split()[0]
    return int(nanoseconds) / 1e9 + time.process_time()


def _burn(seconds: float) -> None:
    begin = time.process_time()
    while time.process_time() - begin < seconds:
        pass


if __name__ == "__main__":
    main()

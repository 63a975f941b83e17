"""pip-audit over what is installed here; arguments are pip-audit's. Says why, where no service can be asked.

Exits with 1 on a known vulnerability. pip-audit by itself passes when the service knows none of the packages.
"""

import json
import subprocess
import sys
from pathlib import Path

PIP_AUDIT = Path(sys.executable).parent / "pip-audit"
OPTIONS = ["--skip-editable", "--format=json", "--desc=off", "--progress-spinner=off", "--timeout=5"]
# Ourselves; and what came with the venv, as old as its Python: nothing here depends on them.
NOT_ASKED = {"orders-api", "pip", "setuptools"}
UNREACHABLE = ("requests.exceptions.", "pip_audit._service.", "vulnerability feed")


def main() -> int:
    ran = subprocess.run([PIP_AUDIT, *OPTIONS, *sys.argv[1:]], capture_output=True, text=True)
    try:
        packages = [one for one in json.loads(ran.stdout)["dependencies"] if one["name"] not in NOT_ASKED]
    except ValueError:
        return without_answer(ran.stderr)
    audited = [one for one in packages if "vulns" in one]
    if not audited:
        return skipped(f"the service of known vulnerabilities knows none of the {len(packages)} packages")
    unknown = [one["name"] for one in packages if "vulns" not in one]
    if unknown:
        print("not known to the service:", *unknown)
    found = [(one, vulnerability) for one in audited for vulnerability in one["vulns"]]
    for one, vulnerability in found:
        fixed = " or ".join(vulnerability["fix_versions"]) or "no version yet"
        print(f"{one['name']} {one['version']}: {vulnerability['id']}, fixed in {fixed}")
    return 1 if found else 0


def without_answer(stderr: str) -> int:
    if any(name in stderr for name in UNREACHABLE):
        return skipped("no service of known vulnerabilities can be reached")
    print(stderr, file=sys.stderr)
    return 1


def skipped(reason: str) -> int:
    print(f"skipped: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Install Chromium for the browser tests, where a host is found and this user may.

Run as `python -m tests.install_browser`. Without a Chromium the browser tests are left out, so
this never fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.support.browser import find_chromium
from tests.support.host_location import find_host

PACKAGES = ["chromium", "fonts-dejavu-core"]


def main() -> int:
    if find_host() is None or find_chromium() is not None:
        return 0
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("apt-get") is None:
        print("browser: no Chromium found; the browser tests are left out")
        return 0
    print("browser: installing Chromium", flush=True)
    install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if done.returncode != 0:
            print(done.stdout)
            print("browser: Chromium could not be installed; the browser tests are left out")
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())

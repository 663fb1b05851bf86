"""Makes a virtual environment with pinned packages, once, and prints the path of its Python.

    set_up_python.py FOLDER REQUIREMENTS

Test runs that start at the same time wait for each other; a marker says which requirements are installed.
"""

import fcntl
import os
import subprocess
import sys
import venv

folder, requirements = (os.path.abspath(argument) for argument in sys.argv[1:])
python = os.path.join(folder, "bin", "python")
marker = os.path.join(folder, ".requirements")
with open(requirements, encoding="utf-8") as file:
    wanted = f"{sys.version}\n{file.read()}"


def installed() -> bool:
    try:
        with open(marker, encoding="utf-8") as file:
            return file.read() == wanted
    except FileNotFoundError:
        return False


if not installed():
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with open(f"{folder}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed():
            # what is of other requirements, of another Python or half done is made anew
            venv.create(folder, with_pip=True, clear=True)
            pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "-r", requirements]
            subprocess.run(pip, check=True, stdout=sys.stderr)
            with open(marker, "w", encoding="utf-8") as file:
                file.write(wanted)
print(python)

# Sourced by the other scripts: makes .venv, installs what scripts/constraints.txt pins, and leaves $PY set.
# A second run installs nothing: .venv/.installed holds the checksum of what was installed, and where.
# An environment that was there before is used as it is; only one that this script made is ever deleted.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"
PY="$venv/bin/python"
made="$venv/.made_by_setup_env"

fail() {
    printf '\nsetup failed: %s\n  what to do: %s\n' "$1" "$2" >&2
    exit 1
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# Also where an earlier run was interrupted before the environment had its pip.
make_venv() {
    local python
    python=$(find_python) || fail "no Python from 3.11 to 3.13 found" "install one, or name it: PYTHON=/path/to/python3 bash $0"
    if [ -e "$venv" ] && [ ! -e "$made" ] && [ ! -e "$venv/.installed" ]; then
        fail "$venv has no working pip, and this script did not make it" "move it away, then run this script again"
    fi
    echo "making $venv with $("$python" --version)"
    rm -rf "$venv"
    mkdir "$venv"
    touch "$made"
    "$python" -m venv "$venv" || {
        rm -rf "$venv"
        fail "$python cannot make a virtual environment" "on Debian and Ubuntu: apt-get install python3-venv, then run this script again"
    }
}

pip_install() {
    local what=$1
    shift
    echo "installing $what ..."
    "$PY" -m pip install --quiet --disable-pip-version-check -c "$root/scripts/constraints.txt" "$@" ||
        fail "pip could not install $what" \
            "read pip's message above; check the network or your package index (PIP_INDEX_URL), then run this script again"
}

# opencv-python links against the system's libGL, which a bare server lacks; the headless build of the same version does not.
# Both own the folder cv2: taking one out breaks the other, so the headless build is written anew even if it is listed.
ensure_opencv() {
    local error version
    error=$("$PY" -c 'import cv2' 2>&1) && return 0
    version=$("$PY" -m pip show opencv-python 2>/dev/null | sed -n 's/^Version: //p') || true
    [ -n "$version" ] || fail "import cv2 fails: ${error##*$'\n'}" "move $venv away, then run this script again"
    echo "opencv-python does not load here (${error##*$'\n'}); putting opencv-python-headless $version in its place"
    "$PY" -m pip uninstall --quiet --yes opencv-python
    pip_install "opencv-python-headless" --force-reinstall --no-deps "opencv-python-headless==$version"
    "$PY" -c 'import cv2' || fail "OpenCV does not load, nor does its headless build" "read the message above; a system library is missing"
}

setup_env() {
    local wanted
    wanted=$({ echo "$root"; cat "$root/pyproject.toml" "$root/scripts/constraints.txt" "$root/scripts/setup_env.sh"; } | cksum)
    if [ -x "$PY" ] && [ "$(cat "$venv/.installed" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    "$PY" -m pip --version >/dev/null 2>&1 || make_venv
    pip_install "torch and triton" "torch==2.13.0"
    pip_install "the project and its tools" -e "$root[dev,png,onnx,openvino,app]"
    ensure_opencv
    printf '%s' "$wanted" >"$venv/.installed"
}

setup_env

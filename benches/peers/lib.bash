# What the scripts of all peers share. Each is called in one of these ways:
#
#   PEER install      installs it, or prints "skipped: cannot install ..." and exits with 69
#   PEER version      prints the version that is installed; fails if none is
#   PEER start DIR    starts three nodes with their data in DIR, prints one line of JSON, runs until its stdin closes, and
#                     ends with the nodes
#
# `start` finds its ports in the environment, three of each, by blanks:
#
#   CLIENT_OWN, CLIENT_KNOWN      where the nodes listen for clients, and where clients reach them
#   PEER_OWN, PEER_KNOWN          where they listen for each other, and where they reach each other
#   PEER2_OWN, PEER2_KNOWN        the same once more, for those that need two
#   RTT_MS                        round trip between them: elections have to be patient. Milliseconds
#
# Own and known ports differ where a relay in between delays what passes.
set -euo pipefail

# Where what no package manager of the system installs is put.
PEERS_HOME=${SEQUOR_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/sequor-peers}
RTT_MS=${RTT_MS:-0}
pids=()

# Ends with 69, which `compare` shows as a row that was skipped.
skip() {
    echo "skipped: cannot install $*"
    exit 69
}

# Debian's packages by name. None of them may start a service: a second etcd on the usual ports is not wanted.
apt_install() {
    local missing=() package
    for package in "$@"; do
        dpkg -s "$package" > /dev/null 2>&1 || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get > /dev/null || skip "${missing[*]}: there is no apt-get here"
    [ "$(id -u)" -eq 0 ] || skip "${missing[*]}: run as root: apt-get install ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" > /dev/null \
        || skip "${missing[*]}: apt-get install ${missing[*]} failed"
    if [ -d /run/systemd/system ]; then
        for package in "${missing[@]}"; do
            # Debian names a service like its package, or like what it serves.
            systemctl disable --now "$package" > /dev/null 2>&1 || true
            systemctl disable --now "${package%-server}" > /dev/null 2>&1 || true
        done
    fi
}

ports() {
    read -ra CLIENT_OWN <<< "$CLIENT_OWN"
    read -ra CLIENT_KNOWN <<< "$CLIENT_KNOWN"
    read -ra PEER_OWN <<< "$PEER_OWN"
    read -ra PEER_KNOWN <<< "$PEER_KNOWN"
    read -ra PEER2_OWN <<< "${PEER2_OWN:-}"
    read -ra PEER2_KNOWN <<< "${PEER2_KNOWN:-}"
}

end_nodes() {
    [ ${#pids[@]} -eq 0 ] && return
    kill "${pids[@]}" 2> /dev/null || true
    # Nothing of theirs is needed any more: those that take their time are not waited for.
    for _ in $(seq 50); do
        kill -0 "${pids[@]}" 2> /dev/null || break
        sleep 0.1
    done
    kill -9 "${pids[@]}" 2> /dev/null || true
    wait 2> /dev/null || true
}

# Starts one node: its log is DIR/node-N.log.
node() {
    local number=$1
    shift
    "$@" > "$DIR/node-$number.log" 2>&1 < /dev/null &
    pids+=($!)
}

# Says that the nodes run, and waits until they are not needed any more.
#   serve VERSION DURABILITY SETTINGS
# DURABILITY begins with "fsync" if, and only if, what is acknowledged is on stable storage: the comparison shows it, and
# gives those that do not sync another colour.
serve() {
    printf '{"version":"%s","durability":"%s","settings":"%s","processes":[%s]}\n' \
        "$1" "$2" "$3" "$(IFS=,; echo "${pids[*]}")"
    cat > /dev/null
}

# Goes to install, version or start of the script that sourced this.
main() {
    case "${1:-}" in
        install) install ;;
        version) version ;;
        start)
            DIR=${2:?start needs a directory}
            mkdir -p "$DIR"
            ports
            trap end_nodes EXIT
            trap 'exit 0' TERM INT HUP
            start
            ;;
        *)
            echo "usage: $0 install | version | start DIR" >&2
            exit 2
            ;;
    esac
}

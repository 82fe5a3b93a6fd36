#!/bin/bash
# Without rights: the daemon started by an ordinary user says what it lacks and ends, a user who may not
# change the node is refused with exit status 6 but may read, and a missing daemon is exit status 3.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
. "$(dirname "$0")/lib.sh"
need setpriv
hosts alice
need_programs kernscaled
start_coordinator
# The checkout may lie where only root can look.
mkdir -m 755 "$W/bin"
cp "$BIN/kernscaled" "$BIN/wgctl" "$W/bin/"
chmod 755 "$W/bin/"*

nobody() {
	ip netns exec "${P}alice" setpriv --reuid 65534 --regid 65534 --clear-groups \
		--inh-caps=-all --bounding-set=-all --no-new-privs "$@"
}
mkdir -p "$W/nobody"
chown 65534:65534 "$W/nobody"
expect 1 timeout 10 ip netns exec "${P}alice" setpriv --reuid 65534 --regid 65534 --clear-groups \
	--bounding-set=-all --no-new-privs "$W/bin/kernscaled" --statedir "$W/nobody/s" --runtimedir "$W/nobody/r" \
	--socket "$W/nobody/sock"
said 'CAP_NET_ADMIN'
nothing_left alice

expect 3 wgctl alice status
said 'kernscaled'

join alice
chmod 644 "$W/key"
expect 0 nobody "$W/bin/wgctl" --socket "$W/alice/run/kernscaled.sock" status
expect 6 nobody "$W/bin/wgctl" --socket "$W/alice/run/kernscaled.sock" down
said 'root|group'
expect 6 nobody "$W/bin/wgctl" --socket "$W/alice/run/kernscaled.sock" logout
expect 0 wgctl alice status

# The rights it keeps are three and no more: NET_BIND_SERVICE 10, NET_ADMIN 12, NET_RAW 13.
caps=$(awk '/^CapPrm:/ { print $2 }' "/proc/${PIDS[alice]}/status")
[ $((0x$caps)) = $((0x3400)) ] || fail "the daemon keeps capabilities $caps"
bound=$(awk '/^CapBnd:/ { print $2 }' "/proc/${PIDS[alice]}/status")
[ $((0x$bound & ~0x3400)) = 0 ] || fail "capability bounding set $bound"

#!/bin/bash
# A second daemon on the same state, or on the same network namespace, is refused in words at once; the
# first one goes on undisturbed. A foreign interface of our name is not taken. Nor does another user of the machine, who
# can have any name that a daemon goes by, keep one from starting, or hide it from a second one.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg setpriv flock
hosts alice bob carol
start_coordinator

# squat HOST NAME…: somebody has them there, before the daemon
squat() {
	start "squatter-$1" "$1" setpriv --reuid 4712 --regid 4712 --clear-groups "$BIN/tests/scenario/squatter" "${@:2}"
	wait_until 10 grep -q 'it has them' "$LOGS/squatter-$1.log" || fail "$(cat "$LOGS/squatter-$1.log")"
}

squat alice kernscaled/kernscale0 kernscaled/kernscale0/0
on alice sysctl -qw net.core.somaxconn=1 # who was refused must not take the place of who is to be
# Nor does a lock on her folder, which anybody can read.
node_folders alice
start locker alice setpriv --reuid 4712 --regid 4712 --clear-groups flock -s "$W/alice/run" sleep 100
join alice
check running locker
stop locker
check grep -q "user 4712 (process ${PIDS[squatter-alice]}) calls itself the kernscaled of interface kernscale0" "$LOGS/alice.log"
before=$(key_of alice)

mkdir -p "$W/other/state" "$W/other/run"
chown -R "$NODE_USER" "$W/other"
chmod 755 "$W/other" "$W/other/run"
second() {
	timeout 10 ip netns exec "${P}alice" "$BIN/kernscaled" --statedir "$1" --runtimedir "$W/other/run" \
		--ca-file "$W/tls.pem" --user "$NODE_USER"
}
expect 1 second "$W/alice/state"
said "another kernscaled has the state folder $W/alice/state"

runtime() {
	timeout 10 ip netns exec "${P}alice" "$BIN/kernscaled" --statedir "$W/other/state" --runtimedir "$W/alice/run" \
		--interface kernscale1 --ca-file "$W/tls.pem" --user "$NODE_USER"
}
expect 1 runtime
said "another kernscaled has the runtime folder $W/alice/run: stop it or give --runtimedir"

for _ in 1 2 3 4; do
	expect 1 second "$W/other/state"
	said 'another kernscaled has interface kernscale0'
done
stop squatter-alice # so that its name is free
expect 1 second "$W/other/state"
said 'another kernscaled has interface kernscale0'
check running alice
expect 0 wgctl alice status
[ "$(key_of alice)" = "$before" ] || fail "the interface was touched"

step "a foreign interface of our name"
ip -n "${P}bob" link add kernscale0 type wireguard
wg genkey >"$W/foreign.key"
on bob wg set kernscale0 private-key "$W/foreign.key"
foreign=$(key_of bob)
start_node bob
expect 1 up bob
said 'kernscale0'
[ "$(key_of bob)" = "$foreign" ] || fail "the foreign interface was taken"

step "somebody has every name"
# shellcheck disable=SC2046 # words
squat carol kernscaled/kernscale0 $(seq -f 'kernscaled/kernscale0/%g' 0 7)
join carol
check grep -q 'a second one will not be noticed' "$LOGS/carol.log"

#!/bin/bash
# A second daemon on the same state, or on the same network namespace, is refused in words at once; the
# first one goes on undisturbed. A foreign interface of our name is not taken.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg
inet
host pub 198.51.100.10
host alice 198.51.100.11
host bob 198.51.100.12
start_coordinator
join alice
before=$(on alice wg show kernscale0 public-key)

second() {
	timeout 10 ip netns exec "$P$1" "$BIN/kernscaled" --statedir "$2" --runtimedir "$3" --socket "$3/s" \
		--interface "${4:-kernscale0}" --port "${5:-41641}" --table "${6:-kernscale}" --user "$NODE_USER"
}
mkdir -p "$W/other/state" "$W/other/run"
chown -R "$NODE_USER" "$W/other"
expect 1 second alice "$W/alice/state" "$W/other/run"
said "$W/alice/state|already|another"
expect 1 second alice "$W/other/state" "$W/other/run"
said 'already|another'
check running alice
expect 0 wgctl alice status
[ "$(on alice wg show kernscale0 public-key)" = "$before" ] || fail "the interface was touched"

step "a foreign interface of our name"
ip -n "${P}bob" link add kernscale0 type wireguard
wg genkey >"$W/foreign.key"
on bob wg set kernscale0 private-key "$W/foreign.key"
foreign=$(on bob wg show kernscale0 public-key)
start_node bob
expect 1 up bob
said 'kernscale0'
[ "$(on bob wg show kernscale0 public-key)" = "$foreign" ] || fail "the foreign interface was taken"

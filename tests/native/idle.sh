#!/bin/bash
# limit: 90 s
# Servers for which there is nothing to do sleep. A coordinator without nodes (with a relay inside) and a relay without
# clients are not woken at all; each map stream may cost one wake-up in 50 to 59 s, each relay connection one in 60 to
# 65 s (keep-alives, their senders' own), and nothing besides. All threads' voluntary switches in 30 s are counted.
. "$(dirname "$0")/lib.sh"
need_programs kernscale-relay kernscale-coordinator tests/interop/derpcat
SECS=30

# wakes NAME: how often its threads have gone to sleep by now
wakes() {
	cat "/proc/${PIDS[$1]}"/task/*/status | awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n }'
}

coordinator_config ""
mkdir "$W/empty"
sed -e "s|:$PORT|:$((PORT + 1))|; s|$W/|$W/empty/|g; s|paths: \[[^]]*\]|paths: []|" -e "s|server: {enabled: false}|server: {enabled: true, \
private_key_path: $W/empty/derp.key, region_id: 901, region_code: in, region_name: In, stun_listen_addr: \"127.0.0.1:$((PORT + 2))\"}|" "$W/config.yaml" >"$W/empty/config.yaml"
start empty "$BIN/kernscale-coordinator" --config "$W/empty/config.yaml"
start_coordinator
mesh_key
join alice bob
start_relay relay $((PORT + 3)) --tls none --stun off
start_relay alone $((PORT + 4)) --tls none --stun "127.0.0.1:$((PORT + 5))"
wait_until 5 grep -q serving "$LOGS/empty.log" || fail "the empty coordinator does not come up: $(cat "$LOGS/empty.log")"
for n in carol dave; do client $n $((PORT + 3)) plain; done
came 5 carol dave
all_wakes() {
	local p

	for p in empty coordinator relay alone; do echo "$p $(wakes $p)"; done
}
asleep() {
	seen=$(all_wakes)
	sleep 2
	[ "$(all_wakes)" = "$seen" ]
}
wait_until 20 asleep || fail "they do not come to rest: wake-ups" "$seen" "then" "$(all_wakes)" # what came with the connections is written
declare -A before=() most=([empty]=1 [coordinator]=4 [relay]=4 [alone]=1)
for p in "${!most[@]}"; do before[$p]=$(wakes "$p"); done
sleep $SECS
for p in "${!most[@]}"; do
	n=$(($(wakes "$p") - before[$p]))
	step "$p: woken $n times in $SECS s"
	[ $n -le "${most[$p]}" ] || fail "$p: more than ${most[$p]}"
	# Nor does the kernel fill with huge pages what they have given back. One that has none does not say.
	! grep -q '^THP_enabled:[[:space:]]*1' "/proc/${PIDS[$p]}/status" || fail "$p may have huge pages"
done
# And they are awake when there is something.
check admin users create afterwards
tell bob home 900
hears alice 'home=900'

#!/bin/bash
# limit: 400 s
# The daemon of alice is killed right after every single message that it sends to the kernel from `wgctl down` on: the
# next start finds that the mesh shall not stand and takes away what is left of it, and nothing else; at no moment do
# peers stand without a packet filter. Nor is the mesh left behind by a `wgctl down` that a daemon is asked for which
# could not bring it up, since another has its port; or by one that cannot remove it now.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need wg nft
hosts alice bob
start_coordinator
join alice bob
check wait_until 20 reach alice bob
map_settled alice bob
stop alice

filtered() {
	[ -z "$(on alice wg show kernscale0 peers 2>/dev/null)" ] || on alice nft list chain inet kernscale forward >/dev/null
}
stands() {
	link_is_up alice && [ -n "$(on alice wg show kernscale0 peers)" ]
}
# killed_at N: 0 if it died of its N-th message from `wgctl down` on, 1 if it does not send so many
killed_at() {
	rm -f "$W/alice/going"
	NODE_UNDER=$(preload killer "KILL_AT=$1 KILL_FROM=$W/alice/going") start_node alice
	disown # the shell would report each death
	check wait_until 10 wgctl alice up
	check wait_until 10 stands
	touch "$W/alice/going"
	wgctl alice down >"$W/down.said" 2>&1
	wait_until 1 not running alice && unset "PIDS[alice]"
}
gone() {
	! ip -n "${P}alice" link show kernscale0 >/dev/null 2>&1 && ! table_stands alice && rules alice 0
}
another_stands() {
	[ "$(ip -n "${P}alice" rule | grep -c '^5300:')" = 1 ] && on alice nft list table inet other >/dev/null &&
		ip -n "${P}alice" link show other >/dev/null
}
# What is another's is not taken for ours.
check ip -n "${P}alice" rule add priority 5300 table 77
check on alice nft add table inet other
check ip -n "${P}alice" link add other type wireguard

n=0 early=0
while killed_at $((n + 1)); do
	if ! grep -q '"want_running": false' "$W/alice/state/state.json"; then # of what it sent before it was asked
		early=$((early + 1))
		[ $early -lt 20 ] || fail "killed before it was asked, $early times"
		continue
	fi
	n=$((n + 1))
	filtered || fail "killed at message $n: peers without a filter"
	start_node alice
	wait_until 10 gone || fail "killed at message $n of going down, and the next start leaves something: $(mesh_of alice 2>&1)"
	nothing_left alice
	check another_stands
	[ ! -e "$W/alice/run/kernel-objects" ] || fail "killed at message $n, and the names are still noted"
	stop alice
	[ $n -lt 100 ] || break
done
step "killed at each of $n messages, and nothing is left ($early times before it was asked)"
[ $n -gt 5 ] || fail "too few messages: is the shim at work?"
nothing_left alice
check stop alice

step "down by one that could not come up"
start_node alice
expect 0 wgctl alice up
check wait_until 10 stands
check stop alice
check stands
on alice ip link add squat type wireguard
on alice wg set squat listen-port 5555
check on alice ip link set squat up
start_node alice --port 5555
up_fails() { wgctl alice status | grep -q 'port 5555 is taken'; }
check wait_until 10 up_fails
check ip -n "${P}alice" link show kernscale0 >/dev/null
expect 0 wgctl alice down
nothing_left alice
check another_stands
expect 0 wgctl alice down
check on alice ip link del squat
check stop alice

step "down while the interface cannot be removed"
NODE_UNDER=$(preload killer "KEEP_LINK=$W/alice/kept") start_node alice
expect 0 wgctl alice up
check wait_until 10 stands
touch "$W/alice/kept"
expect 1 wgctl alice down
said 'cannot remove interface kernscale0, so its packet filter stays'
check stands
check table_stands alice
wgctl alice status >"$W/status" 2>&1
check grep -q 'cannot remove interface kernscale0' "$W/status"
step "and its daemon is killed meanwhile"
stop alice KILL
start_node alice
check wait_until 10 gone
nothing_left alice
expect 0 wgctl alice up
check wait_until 10 stands
stop alice
NODE_UNDER=$(preload killer "KEEP_LINK=$W/alice/kept") start_node alice
expect 1 wgctl alice logout
said 'cannot remove interface kernscale0'
check stands
echo 0123456789abcdef0123456789abcdef0123456789abcdef >"$W/bad"
expect 6 up_with bad alice # it is still of who was logged in
sleep 6
wgctl alice status >"$W/status" 2>&1
check grep -q 'cannot remove interface kernscale0' "$W/status"
rm "$W/alice/kept"
check wait_until 15 gone
nothing_left alice
[ ! -e "$W/alice/run/kernel-objects" ] || fail "the names are still noted"
check another_stands

step "somebody has made an interface of his own with our name, while the daemon runs and while it is dead"
wg genkey >"$W/foreign.key"
foreign() {
	ip -n "${P}alice" -batch - <<-EOF || fail "no interface of another"
		link del kernscale0
		link add kernscale0 type wireguard
	EOF
	check on alice wg set kernscale0 private-key "$W/foreign.key"
	foreign=$(key_of alice)
}
told() { wgctl alice status | grep -q 'kernscale0 exists'; }
for when in alive dead; do
	check up alice
	check wait_until 10 stands
	if [ $when = alive ]; then
		kill -STOP "${PIDS[alice]}"
		foreign
		kill -CONT "${PIDS[alice]}"
	else
		stop alice KILL
		foreign
		start_node alice
	fi
	check wait_until 10 told
	expect 0 wgctl alice down
	[ "$(key_of alice)" = "$foreign" ] || fail "$when: the interface of another was touched"
	check ip -n "${P}alice" link del kernscale0
	nothing_left alice
	check another_stands
done

step "a state folder that is new has not been told to take the mesh down"
expect 0 wgctl alice up
check wait_until 10 stands
stop alice
mkdir "$W/alice/fresh"
chown "$NODE_USER" "$W/alice/fresh"
for _ in 1 2; do
	start_node alice --statedir "$W/alice/fresh"
	sleep 2
	check stands
	check table_stands alice
	check stop alice
done
start_node alice --statedir "$W/alice/fresh"
expect 0 wgctl alice down
nothing_left alice
check another_stands

#!/bin/bash
# limit: 240 s
# Our nodes on a stock Headscale with its embedded relay: direct between NATs, by relay to one without UDP.
#
#   alice - NAT 198.51.100.11 -+
#   bob   - NAT 198.51.100.12 -+- inet - pub 198.51.100.10: headscale, its relay and STUN
#   carol - no UDP 198.51.100.13
. "$(dirname "$0")/lib.sh"
need_programs kernscaled wgctl
nats alice bob carol
firewall_no_udp carol
start_headscale true ""
step "headscale is up"
for n in alice bob carol; do
	join $n
	step "$n joined"
done
expect 0 hs nodes list
said 'alice'
expect 0 wgctl alice status
said '^100\.64\.0\.2 +bob '
expect 0 wgctl alice ping --until-direct -c 20 --timeout 5s bob
wait_until 10 direct alice bob || fail "no direct path: $(wgctl alice status)"
step "direct"
tcp alice bob
tcp bob alice
expect 0 wgctl alice ping --until-direct=false -c 2 carol
said 'via DERP\(tst\)'
tcp alice carol
tcp carol alice
wait_until 5 relayed alice carol || fail "status does not say relay: $(wgctl alice status)"

step "a policy that says * to *:* is allow-all, in the words Headscale has for it"
policy() {
	echo "{\"acls\":[{\"action\":\"accept\",\"src\":[\"*\"],\"dst\":[\"$1\"]}]}" >"$W/policy"
	check hs policy set --file "$W/policy" >/dev/null
}
filter_is() {
	wgctl bob status --json | jq -e --arg f "$1" '.PacketFilter.State == $f'
}
check filter_is allow-all >/dev/null
policy '*:22'
wait_until 10 filter_is replies-only || fail "bob's filter: $(wgctl bob status)"
expect 0 wgctl bob status
said 'only replies are let in'
refute reach alice bob
policy '*:*'
wait_until 10 filter_is allow-all || fail "bob's filter: $(wgctl bob status)"
check reach alice bob 3
tcp alice bob

step "Headscale deletes bob"
id=$(hs nodes list --output json | jq -r '.[] | select((.given_name // .name) == "bob") | .id')
check hs nodes delete --identifier "$id" --force
gone() {
	! wgctl alice status | grep -q ' bob '
}
wait_until 15 gone || fail "alice still shows bob: $(wgctl alice status)"

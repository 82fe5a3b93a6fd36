#!/bin/bash
# limit: 240 s
# Our relay alone serves stock nodes on a stock Headscale: pinned self-made certificate, STUN, netcheck
# without complaint, by relay both ways and a direct path arranged over it.
#
#   stan - NAT 198.51.100.11 -+
#   sue  - NAT 198.51.100.12 -+- inet - pub 198.51.100.10: headscale without relay; kernscale-relay :8443
#   sid  - no UDP 198.51.100.13
. "$(dirname "$0")/lib.sh"
need_stock headscale tailscaled tailscale
inet
host pub 198.51.100.10
nat stan 198.51.100.11 192.168.1
nat sue 198.51.100.12 192.168.2
nat sid 198.51.100.13 192.168.3
firewall_no_udp sid
start_relay
start_headscale false "$W/derp.yaml"
for n in stan sue sid; do
	start_stock $n
	expect 0 ts_up $n
done
expect 0 ts stan netcheck
said 'UDP: true'
said 'Nearest DERP: Ours'
expect 0 ts stan ping --until-direct -c 20 sue
said 'via DERP\(our\)'
said 'via 198\.51\.100\.12:'
expect 1 ts stan ping -c 3 sid
said 'via DERP\(our\)'
tcp stan sid
tcp sid stan
expect 0 ts stan status
if grep '^#     - ' <<<"$SAID" | grep -v 'unstable version'; then fail "stock status complains"; fi

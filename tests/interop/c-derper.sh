#!/bin/bash
# limit: 180 s
# Our nodes through a stock derper with a pinned certificate, named to our coordinator by derp.paths:
# home there, by relay to one without UDP, and STUN of the stock derper for a direct path.
#
#   alice - NAT 198.51.100.11 -+
#   bob   - NAT 198.51.100.12 -+- inet - pub 198.51.100.10: our coordinator without relay; derper :8443
#   carol - no UDP 198.51.100.13
. "$(dirname "$0")/lib.sh"
nats alice bob carol
firewall_no_udp carol
start_derper
step "derper is up"
coordinator_config false "$W/derp.yaml"
start_coordinator
join alice bob carol
expect 0 wgctl alice netcheck
said 'Nearest DERP: Stock'
expect 0 wgctl alice ping --until-direct=false -c 2 carol
said 'via DERP\(stk\)'
tcp alice carol
tcp carol alice
expect 0 wgctl alice ping --until-direct -c 20 --timeout 5s bob
wait_until 10 direct alice bob || fail "no direct path: $(wgctl alice status)"
tcp alice bob

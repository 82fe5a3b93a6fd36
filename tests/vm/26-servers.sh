#!/bin/bash
# Coordinator and relay are restarted, killed, and told to reload: the nodes are back at them by themselves, and
# the mesh does not notice.
. "$(dirname "$0")/lib.sh"

connected() {
	wgctl "$1" status --json --peers=false | grep -q '"ControlConnected": true'
}
everybody() {
	connected vm && connected bob
}
traffic
check systemctl restart kernscale-coordinator kernscale-relay
wait_until 60 everybody || fail "not back after the restart: $(wgctl vm status; wgctl bob status)"
step "restarted, both nodes are back"
check systemctl kill -s KILL kernscale-coordinator kernscale-relay
wait_until 20 restarted kernscale-coordinator 1 || fail "the coordinator does not come back"
wait_until 20 restarted kernscale-relay 1 || fail "the relay does not come back"
wait_until 60 everybody || fail "not back after kill -9: $(wgctl vm status; wgctl bob status)"
step "killed, both nodes are back"
no_loss
pid=$(get kernscale-relay MainPID)
check systemctl reload kernscale-coordinator kernscale-relay
sleep 1
[ "$(get kernscale-relay MainPID)" = "$pid" ] || fail "the relay ended when told to reload"
check curl -sf -o /dev/null http://198.51.100.1:8443/derp/probe
check admin health
[ "$(admin nodes list -o json-line | grep -o '"givenName":"[a-z]*"' | sort -u | wc -l)" = 2 ] || fail "$(admin nodes list)"

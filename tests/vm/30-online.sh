#!/bin/bash
# kernscale-online.target: a service ordered after it starts when the node has its addresses, and not before;
# it is not touched when the daemon restarts; and a wait that is in vain ends with a reason.
. "$(dirname "$0")/lib.sh"

cat >/run/systemd/system/needs-mesh.service <<X
[Unit]
DefaultDependencies=no
Requires=kernscale-online.target
After=kernscale-online.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ip -o addr show dev kernscale0 >$W/seen'
X
story_clean() {
	systemctl stop needs-mesh kernscale-online.target kernscale-wait-online
	systemctl unmask --runtime kernscaled
	rm -f /run/systemd/system/needs-mesh.service
}
systemctl daemon-reload

check systemctl stop kernscaled kernscale-wait-online
check wgctl bob wait --timeout=5s # one that runs: at once
check ip addr flush dev kernscale0
check systemctl mask --runtime kernscaled # it cannot be started
systemctl start --no-block needs-mesh
sleep 3
[ ! -e "$W/seen" ] || fail "it did not wait"
check systemctl unmask --runtime kernscaled
check systemctl start kernscaled
wait_until 30 systemctl -q is-active needs-mesh || fail "it never started: $(systemctl status kernscale-wait-online)"
grep -q "$(cat $SHARED/ip4)/" "$W/seen" || fail "started without the address: $(cat "$W/seen")"
check systemctl -q is-active kernscale-online.target
step "started with the address there"

since=$(get needs-mesh ActiveEnterTimestampMonotonic)
check systemctl restart kernscaled
check wgctl vm wait --timeout=20s
[ "$(get needs-mesh ActiveEnterTimestampMonotonic)" = "$since" ] || fail "a restart of the daemon restarted what hangs on the target"
step "a restart of the daemon does not touch it"

# In vain: the node is stopped by its operator.
check systemctl stop needs-mesh kernscale-online.target kernscale-wait-online kernscaled
check systemctl start kernscale-online.target
check systemctl -q is-active kernscaled # wanted by the wait
check systemctl stop kernscale-online.target kernscale-wait-online
check wgctl vm down
dropin kernscale-wait-online Environment=TIMEOUT=2s
refute systemctl start needs-mesh
wait_until 10 logged kernscale-wait-online "this node is stopped; wgctl up" || fail "no reason in the log"
[ "$(get kernscale-wait-online ExecMainStatus)" = 5 ] || fail "exit status $(get kernscale-wait-online ExecMainStatus)"
expect 5 wgctl vm wait --timeout=100ms
check wgctl vm up --timeout=30s
check systemctl start needs-mesh
step "in vain with a reason, then not in vain"

#!/bin/bash
# A node behind a firewall that drops all UDP reaches the others by the relay, and TCP flows both ways.
#
#   alice 192.168.1.2 - ralice 198.51.100.11 - inet - rcarol 198.51.100.13 (no UDP) - carol 192.168.3.2
#                              pub 198.51.100.10 (coordinator, relay)
. "$(dirname "$0")/lib.sh"
need wg
nats alice
nat carol 198.51.100.13 192.168.3
firewall_no_udp carol
start_coordinator
join alice carol

step "what each can say of its network"
expect 0 wgctl alice netcheck
said '\* UDP: true'
said '\* IPv4: yes, 198\.51\.100\.11:[0-9]+'
said '\* Nearest DERP: Test'
expect 0 wgctl carol netcheck
said '\* UDP: false'
said '\* IPv4: \(no addr found\)'
said '\* Nearest DERP: Test'
expect 0 wgctl carol status
said 'UDP is blocked: peers are reached by relay only'
refute grep 'UDP is blocked' <(wgctl alice status)

# The first one is lost if carol's relay has not been told to alice yet.
expect 0 wgctl alice ping --until-direct=false -c 3 carol
said 'via DERP\(tst\) in'
check reach alice carol 4
check reach carol alice 4
step "TCP both ways"
tcp alice carol
tcp carol alice
wait_until 5 relayed alice carol || fail "status does not say relay: $(wgctl alice status)"
on alice wg show kernscale0 endpoints | grep -qE '127\.[0-9]+\.' || fail "the kernel's endpoint: $(on alice wg show kernscale0 endpoints)"
expect 1 wgctl alice ping --until-direct -c 2 --timeout 2s carol
said 'direct connection not established'

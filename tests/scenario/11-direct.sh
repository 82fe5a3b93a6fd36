#!/bin/bash
# Two nodes behind different masquerading NATs: the first packet goes by the relay, a direct path is
# found, the kernel has it, and TCP flows both ways.
#
#   alice 192.168.1.2 - ralice 198.51.100.11 - inet - rbob 198.51.100.12 - bob 192.168.2.2
#                              pub 198.51.100.10 (coordinator, relay)
. "$(dirname "$0")/lib.sh"
need wg
nats alice bob
start_coordinator
join alice bob

step "ping until direct"
expect 0 wgctl alice ping --until-direct -c 20 --timeout 5s bob
said 'via 198\.51\.100\.12:[0-9]+ in'
wait_until 5 direct alice bob || fail "status does not say direct: $(wgctl alice status)"
check reach alice bob 4
on alice wg show kernscale0 endpoints | grep -q '198\.51\.100\.12:' || fail "the kernel's endpoint: $(on alice wg show kernscale0 endpoints)"
wait_until 10 direct bob alice || fail "bob does not see alice directly"

step "TCP both ways"
tcp alice bob
tcp bob alice

step "what passed did so directly"
before=$(on pub cat /sys/class/net/eth0/statistics/rx_bytes)
tcp alice bob
after=$(on pub cat /sys/class/net/eth0/statistics/rx_bytes)
[ $((after - before)) -lt $((BYTES / 20)) ] || fail "$((after - before)) of $BYTES bytes went over the relay"

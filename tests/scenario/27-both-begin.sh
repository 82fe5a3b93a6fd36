#!/bin/bash
# limit: 120 s
# time: simulated
# Two nodes begin to send to each other in the same moment, at rest by relay, 40 ms of delay between them.
# The kernels' handshakes cross, and answer each other for ever unless the daemons let one of them count.
# The same without UDP.
#
#   alice 192.168.1.2 - ralice 198.51.100.11 - inet - rbob 198.51.100.12 - bob 192.168.2.2
#   carol 192.168.3.2 - rcarol 198.51.100.13   -+-   pub 198.51.100.10 (coordinator, relay)
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"
need wg tc
nats alice bob carol
firewall_no_udp carol
for h in ralice rbob rcarol pub; do
	on $h tc qdisc add dev eth0 root netem delay 20ms || skip "this kernel has no netem"
done
start_coordinator
join alice bob carol
sleep 5
load alice bob 100 100 1000
load alice carol 100 100 1000
sleep 2
phase "after two seconds"
sleep 10
no_loss

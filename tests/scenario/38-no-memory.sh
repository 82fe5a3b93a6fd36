#!/bin/bash
# limit: 180 s
# A daemon that gets no more memory: nodes join, its API is asked, the relay and the coordinator go and
# come. It does not die, the tunnels lose nothing, and with memory again it knows everybody.
#
#   alice 198.51.100.11 \
#                         inet - pub 198.51.100.10 (coordinator, relay)
#   bob, carol, dave     /
. "$(dirname "$0")/lib.sh"
need prlimit
hosts alice bob carol dave
start_coordinator
join alice bob
check wait_until 20 reach alice bob
both_direct 20 alice bob
node=${PIDS[alice]}
starve() { # leaves KIB more than it has
	check prlimit --pid "$node" --as=$((($(status_of alice VmSize) + $1) * 1024))
}
start traffic alice ping -i 0.05 -W 1 "$(ip4 bob)"

starve 0
join carol
for _ in $(seq 40); do
	# What asks may be refused; it must not hang, and the daemon must not die.
	wgctl_within 10 alice status >/dev/null 2>&1
	[ $? != 124 ] || fail "status hangs"
	check running alice
done
step "the servers restart"
stop coordinator
sleep 1
run_coordinator
starve 64
join dave
sleep 3
check running alice
for _ in 1 2 3; do wgctl_within 10 alice netcheck >/dev/null 2>&1; done
check running alice
grep -iE 'memory|cannot' "$LOGS/alice.log" | sort | uniq -c

step "memory again"
check prlimit --pid "$node" --as=unlimited
check wait_until 40 reach alice dave
check wait_until 10 reach alice carol
expect 0 wgctl alice status
said dave
said carol
all_answered traffic
[ "$(wc -l <"$LOGS/alice.log")" -lt 400 ] || fail "the log is full of it"

#!/bin/bash
# MemoryMax and TasksMax of an operator: in a small allowance the services go on serving. Where it is too small
# the kernel kills, the log says so, the mesh stands, and the node comes back once there is enough.
. "$(dirname "$0")/lib.sh"
read -r -a controllers </sys/fs/cgroup/cgroup.controllers
case " ${controllers[*]} " in
*" memory "*" pids "*) ;;
*) skip "this kernel limits no memory" ;;
esac
STORY_UNDO=restart

for u in "${UNITS[@]}"; do
	dropin "$u" MemoryMax=24M MemorySwapMax=0 TasksMax=4
done
check systemctl restart "${UNITS[@]}"
check wgctl vm wait --timeout=20s
wait_until 20 admin health || fail "no coordinator in 24 MiB"
check curl -sf -o /dev/null http://198.51.100.1:8443/derp/probe
check wgctl vm ping -c 3 --timeout=10s bob
for u in "${UNITS[@]}"; do
	props "$u" NRestarts MemoryCurrent MemoryMax TasksCurrent TasksMax
	[ "${PROP[MemoryMax]} ${PROP[TasksMax]}" = "25165824 4" ] || fail "$u: the limits are not used"
	[ "${PROP[NRestarts]}" = 0 ] || fail "$u does not live in 24 MiB"
	step "$u: $((PROP[MemoryCurrent] / 1024)) KiB, ${PROP[TasksCurrent]} tasks"
done

# Too little to start with: the kernel kills, systemd says so and tries again.
dropin kernscaled MemoryMax=512K MemorySwapMax=0
systemctl restart kernscaled
wait_until 20 logged kernscaled "(OOM|oom)" || fail "nothing of memory in the log"
step "killed for its memory"
standing
dropin kernscaled MemoryMax=64M
wait_until 60 systemctl -q is-active kernscaled || check systemctl start kernscaled
check wgctl vm wait --timeout=20s
standing

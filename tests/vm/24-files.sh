#!/bin/bash
# LimitNOFILE of an operator: the services go on serving, and who came too late for a file is served as soon
# as there is one.
. "$(dirname "$0")/lib.sh"
STORY_UNDO=restart

for u in "${UNITS[@]}"; do
	dropin "$u" LimitNOFILE=64
done
check systemctl restart "${UNITS[@]}"
check wgctl vm wait --timeout=20s
wait_until 20 admin health || fail "no coordinator with 64 files"
check curl -sf -o /dev/null http://198.51.100.1:8443/derp/probe
check wgctl vm ping -c 3 --timeout=10s bob
for u in "${UNITS[@]}"; do
	props "$u" NRestarts MainPID
	[ "${PROP[NRestarts]}" = 0 ] || fail "$u does not live with 64 files"
	grep -q '^Max open files *64 ' "/proc/${PROP[MainPID]}/limits" || fail "$u: LimitNOFILE is not used"
	files=("/proc/${PROP[MainPID]}/fd/"*)
	step "$u: ${#files[@]} files"
done

# More connections than there are files: who came too late waits or is refused; the others are served, and
# all are once there is room.
hold=()
for _ in {1..80}; do
	{ exec {fd}<>/dev/tcp/198.51.100.1/8080; } 2>/dev/null || break
	hold+=("$fd")
done
[ ${#hold[@]} -gt 0 ] || fail "not even one connection"
step "${#hold[@]} connections are held"
check ping -q -c 2 -i 0.2 -W 5 $BOB4
for fd in "${hold[@]}"; do eval "exec $fd>&-"; done
wait_until 30 curl -sf -m 5 -o /dev/null http://198.51.100.1:8080/health || fail "the coordinator does not come back"
[ "$(get kernscale-coordinator NRestarts)" = 0 ] || fail "the coordinator died of it"
step "out of files and back"

standing

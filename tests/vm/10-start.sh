#!/bin/bash
# What is there after `systemctl start`: each service runs as its own user with the rights of its unit and no
# more, keeps its memory from others of that user and from core dumps, has said that it is ready, and answers; users and folders are made as sysusers.d and tmpfiles.d say.
. "$(dirname "$0")/lib.sh"

# rights UNIT USER CAPABILITIES
rights() {
	local k v c
	declare -A status

	props "$1" MainPID Type NRestarts
	[ "${PROP[Type]}" = notify ] || fail "$1 is not of type notify"
	[ "${PROP[NRestarts]}" = 0 ] || fail "$1 was restarted: ${PROP[NRestarts]}"
	while IFS=$':\t' read -r k v; do status[$k]=$v; done <"/proc/${PROP[MainPID]}/status"
	[ "${status[Uid]%%$'\t'*}" = "$(id -u "$2")" ] || fail "$1 runs as ${status[Uid]}"
	for c in CapPrm CapEff CapBnd CapAmb; do
		[ $((0x${status[$c]})) = $(($3)) ] || fail "$1: $c is ${status[$c]}"
	done
	[ "${status[NoNewPrivs]}" = 1 ] || fail "$1 may gain privileges"
	[ "${status[Seccomp]}" = 2 ] || fail "$1 has no system call filter"
	# systemd has changed the user before the program began, which is dumpable then unless it says otherwise itself.
	[ "$(stat -c %U "/proc/${PROP[MainPID]}/environ")" = root ] || fail "$1 can be dumped: its /proc files are of $(stat -c %U "/proc/${PROP[MainPID]}/environ")"
	grep -qE '^Max core file size +0 +0 ' "/proc/${PROP[MainPID]}/limits" || fail "$1: $(grep core "/proc/${PROP[MainPID]}/limits")"
	[ "${status[THP_enabled]:-0}" = 0 ] || fail "$1 may have huge pages, which fill what it has given back"
	step "$1: user $2, capabilities $3"
}
rights kernscaled kernscale 0x3400
rights kernscale-coordinator kernscale-coordinator 0x400
rights kernscale-relay kernscale-relay 0x400

check admin health
check curl -sf -o /dev/null http://198.51.100.1:8443/derp/probe
for d in kernscale kernscale-coordinator kernscale-relay; do
	[ "$(stat -c '%U %a' /var/lib/$d)" = "$d 700" ] || fail "/var/lib/$d: $(stat -c '%U %a' /var/lib/$d)"
done
find /var/lib/kernscale* -type f -perm /077 >"$W/open"
[ ! -s "$W/open" ] || fail "others may read: $(cat "$W/open")"

# Without systemd's own folders: by tmpfiles.d, with the same rights.
for d in /run/kernscale-coordinator /var/lib/kernscale-relay; do
	want=$(stat -c '%U %G %a' $d)
	mv $d "$d.away"
	check systemd-tmpfiles --create kernscale.conf
	got=$(stat -c '%U %G %a' $d)
	rmdir $d
	mv "$d.away" $d
	[ "$got" = "$want" ] || fail "tmpfiles.d makes $d: $got, the unit $want"
done
step "users and folders"

# Whoever is in the group may change the node, all others may look.
as_group() {
	setpriv --reuid 65534 --regid 65534 --groups "$1" --inh-caps=-all --bounding-set=-all --no-new-privs \
		"$(command -v wgctl)" "${@:2}"
}
expect 0 as_group 65534 status
expect 6 as_group 65534 up
said 'group kernscale'
expect 0 as_group kernscale up
step "the group"

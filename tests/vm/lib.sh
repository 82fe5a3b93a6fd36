# shellcheck shell=bash
# lib.sh: what the stories in this folder share; each begins with `. "$(dirname "$0")/lib.sh"`. The words of
# tests/scenario/lib.sh are there as well.
#
# tests/vm/systemd has made the world before the first story, and every story leaves it as it was:
#
#   this host, systemd its process 1             - br0 198.51.100.1/24 - bob 198.51.100.12, namespace
#     kernscaled.service (node "vm")                                   - stranger 198.51.100.13, namespace
#     kernscale-coordinator.service, with relay
#     kernscale-relay.service
#
# bob is a node started by hand: what happens to this host's services does not happen to it.
#
#   wgctl vm|bob ARGUMENT…    wgctl at that node; admin ARGUMENT… at the coordinator
#   get UNIT PROPERTY         as `systemctl show` has it; props UNIT PROPERTY… into ${PROP[…]}
#   dropin UNIT LINE…         settings on top of the unit's own ("[Service]" may be left out), until
#                             the story ends; STORY_UNDO=restart where they work from a start only
#   restarted UNIT N          N restarts by systemd since, and it runs; for wait_until
#   log UNIT                  what the unit, and systemd about it, said since the story began
#   traffic                   pings both ways through the mesh, ten a second, from now on
#   no_loss                   ends them; they have all been answered
#   standing                  interface, key and table are those of the beginning, and they work:
#                             bob is reached, and who pretends to be bob is not heard
#   standing_by TABLE         the same, but for the table's name
#   outlives_owner            a table of the node does so on this kernel
#   give_up                   the node's daemon is killed until systemd starts it no more
#   healthy                   all three services run and the node is in the mesh
. "$(dirname "${BASH_SOURCE[0]}")/../scenario/lib.sh"
umask 022 # what is made here is for the services as well
P=vm-
SHARED=/run/vm
UNITS=(kernscaled kernscale-coordinator kernscale-relay)
BOB4=100.64.0.2
declare -A PROP=()

on() {
	local where=$1

	shift
	if [ "$where" = vm ]; then "$@"; else ip netns exec "$P$where" "$@"; fi
}

wgctl() {
	local n=$1

	shift
	if [ "$n" = vm ]; then
		command wgctl "$@"
	else
		on "$n" /usr/bin/wgctl --socket "$SHARED/$n/run/kernscaled.sock" "$@"
	fi
}

admin() {
	command wgctl admin "$@"
}

# Processes are dear in the emulator: what can be asked at once is asked at once.
get() {
	systemctl show -P "$2" "$1"
}

# props UNIT NAME…: into PROP[NAME]
props() {
	local k v names

	printf -v names ',%s' "${@:2}"
	PROP=()
	while IFS='=' read -r k v; do PROP[$k]=$v; done < <(systemctl show -p "${names#,}" "$1")
}

dropin() {
	local file=/run/systemd/system/$1.service.d/story.conf

	shift
	case $1 in \[*) ;; *) set -- '[Service]' "$@" ;; esac
	printf '%s\n' "$@" >"$file"
	systemctl daemon-reload
}

given_up() {
	[ "$(get kernscaled ActiveState)" = failed ]
}

give_up() {
	for _ in {1..10}; do
		given_up && break
		systemctl kill --kill-who=main -s KILL kernscaled
		sleep 2
	done
	wait_until 20 given_up || fail "the limit was not hit: $(get kernscaled ActiveState)"
}

restarted() {
	props "$1" NRestarts ActiveState SubState
	[ "${PROP[NRestarts]}" -ge "$2" ] && [ "${PROP[ActiveState]}/${PROP[SubState]}" = active/running ]
}

log() {
	journalctl --no-pager -o cat -u "$1" --since "@$BEGAN" 2>/dev/null
}

# The log of UNIT has a line with PATTERN.
logged() {
	grep -qE -- "$2" <<<"$(log "$1")"
}

traffic() {
	ping -D -i 0.1 -W 5 $BOB4 >>"$LOGS/traffic-out.log" 2>&1 &
	PIDS[traffic-out]=$!
	start traffic-in bob ping -D -i 0.1 -W 5 "$(cat $SHARED/ip4)"
}

no_loss() {
	sleep 2 # what has no answer in the end is forgiven for a second
	all_answered traffic-out
	all_answered traffic-in
}

# Datagrams for a port where nobody listens are counted by the kernel, unless the filter drops them first.
unheard() {
	local names values i

	while read -r -a names && read -r -a values; do
		[ "${names[0]}" = Udp: ] || continue
		for i in "${!names[@]}"; do [ "${names[i]}" != NoPorts ] || UNHEARD=${values[i]}; done
		return
	done < <(grep ^Udp: /proc/net/snmp)
}

# heard_from ADDR: stranger sends twenty, to .1 with bob's source, to .2 with its own.
heard_from() {
	local before to=198.51.100.2

	[ "$1" != $BOB4 ] || to=198.51.100.1
	unheard
	before=$UNHEARD
	# shellcheck disable=SC2016 # for that shell
	on stranger bash -c 'for i in {1..20}; do echo x >/dev/udp/$0/9; sleep 0.02; done' $to 2>/dev/null
	unheard
	[ "$UNHEARD" -ge $((before + 20)) ]
}

outlives_owner() {
	local major minor rest

	IFS=. read -r major minor rest < <(uname -r)
	[ "$major" -gt 6 ] || { [ "$major" = 6 ] && [ "$minor" -ge 9 ]; }
}

standing_by() {
	[ "$(wg show kernscale0 public-key)" = "$(cat $SHARED/key)" ] || fail "the interface has another key"
	nft list table inet "$1" >"$W/table" 2>&1 || fail "the table is gone: $(nft list tables)"
	grep -q 'chain forward' "$W/table" || fail "the table has no filter: $(cat "$W/table")"
	check ping -q -c 2 -i 0.2 -W 5 $BOB4
	refute heard_from $BOB4
	check heard_from 198.51.100.13
}

standing() {
	standing_by kernscale
}

healthy() {
	systemctl -q is-active kernscaled && systemctl -q is-active kernscale-coordinator &&
		systemctl -q is-active kernscale-relay && wgctl vm wait --timeout=5s && ping -q -c 1 -W 5 $BOB4 >/dev/null
}

# What a story made beside that; to be redefined.
story_clean() {
	:
}

# What the story changed at the units goes, and if the world is not whole again, that is its fault.
story_end() {
	local r=$? u

	[ $r = 0 ] || {
		nft list ruleset
		for u in "${UNITS[@]}"; do
			systemctl --no-pager status "$u" 2>&1 | head -n 12
			log "$u" | tail -n 30
		done
	}
	story_clean
	rm -f /run/systemd/system/kernscale*.d/story.conf
	systemctl daemon-reload
	systemctl reset-failed "${UNITS[@]}"
	# What a short watchdog of the story is still in force for is started anew.
	systemctl "${STORY_UNDO:-start}" "${UNITS[@]}"
	wait_until 60 healthy || {
		echo "FAIL: the world is not whole after this story: $(wgctl vm status 2>&1)"
		[ $r != 0 ] || r=1
	}
	undo
	exit $r
}

# The first story, and what takes the world apart, say STORY_ENDS=no.
BEGAN=$(date +%s)
[ "${STORY_ENDS:-}" = no ] || trap story_end EXIT

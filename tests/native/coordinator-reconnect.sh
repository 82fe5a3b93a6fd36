#!/bin/bash
# limit: 120 s
# A coordinator with a thousand map streams (NODES) is killed (kill -9) and started again, and all of them come back at
# once. Every node has its full map again within some seconds, with every other in it; nobody is called offline who is
# not, nobody is lost, and those who come back are no news to anybody. Descriptors and memory are as before.
. "$(dirname "$0")/lib.sh"
need_programs kernscale-coordinator tests/native/joinload
NODES=${NODES:-1000} WORKERS=4
[ "$(ulimit -Hn)" -ge $((NODES + 100)) ] || skip "the limit on descriptors is too low for $NODES nodes"
ulimit -n "$(ulimit -Hn)"

# fulls: how many full maps have come
fulls() {
	cat "$W"/full.* 2>/dev/null | wc -l
}

# cost: what the coordinator has and has had
cost() {
	echo "$(descriptors coordinator) descriptors, $(status_of coordinator RssAnon) KiB, most $(status_of coordinator VmHWM) KiB," \
		"$(cpu_msec coordinator) ms of CPU"
}

coordinator_config ""
start_coordinator
load streams --workers $WORKERS --count "$NODES"
wait_until 60 at_least "$NODES" fulls || fail "$(fulls) nodes have a map: $(tail -n 3 "$LOGS/load.log" "$LOGS/coordinator.log")"
sleep 2 # who is online goes round, and to the disk
online_kept() { ! command -v sqlite3 || [ "$(sqlite3 "$W/db.sqlite" 'SELECT count(*) FROM nodes WHERE online')" = "$NODES" ]; }
wait_until 10 online_kept || fail "who is online is not on disk"
step "$NODES nodes: $(cost)"
files=$(descriptors coordinator)
stop coordinator KILL
killed=$(now_msec)
start_coordinator
up=$(now_msec)
wait_until 40 at_least $((2 * NODES)) fulls || fail "$(($(fulls) - NODES)) nodes have a map again: $(tail -n 3 "$LOGS/coordinator.log")"
sort -n "$W"/full.* | awk -v killed="$killed" -v up="$up" -v n="$NODES" '
	NR == n + 1 { first = $1 }
	NR > n { last = $1; if ($2 < least || !least) least = $2; off += $3 }
	END { print "it came up in", up - killed, "ms; first full map after", first - killed, "ms, last after", last - killed,
	      "ms; in it at least", least, "peers;", off + 0, "times somebody called offline"
	      if (least != n - 1 || off || last - killed > 30000) exit 1 }' || fail "not as it was"
step "$NODES nodes are back: $(cost)"
[ "$(cpu_msec coordinator)" -lt 6000 ] || fail "that is too much work"
wait_until 10 at_most $((files + 8)) descriptors coordinator || fail "more descriptors than before: $files"
sleep 3
load_ends
nodes_are "$NODES"
[ "$(grep -c 'told of 0 offline, 0 removed, and since the streams ended of 0 online' "$LOGS/load.log")" = $WORKERS ] ||
	fail "nodes are told of what has not happened"

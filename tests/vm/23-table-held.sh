#!/bin/bash
# Where a table goes with its owner, as on kernels before 6.9, and systemd empties its store without the daemon
# being able to do anything about it: it is given up at an operator's start limit, or a `systemctl stop` kills it.
# A copy of the table holds its place: the mesh stays up and filtered, and a start heals. All along somebody
# outside of the mesh sends as bob: what passes the filter is counted. A kernel that can keep the table is made
# to refuse that (tests/scenario/killer.c).
. "$(dirname "$0")/lib.sh"
STORY_UNDO=restart
SHIM=/usr/lib/kernscale-test.so
as_old=LogLevelMax=debug
if outlives_owner; then
	[ -e "$TOP/build/tests/scenario/killer.so" ] || skip "killer.so is not built"
	cp "$TOP/build/tests/scenario/killer.so" $SHIM
	as_old="Environment=LD_PRELOAD=$SHIM NO_PERSIST=1"
fi
story_clean() {
	nft delete table inet judge
	rm -f $SHIM
}

# Behind our own filter.
check nft -f - <<-X
	table inet judge {
		chain in { type filter hook input priority 10; iifname "br0" ip saddr $BOB4 counter; }
	}
X
on stranger ping -q -i 0.05 198.51.100.1 >"$W/forged" 2>&1 &
PIDS[forger]=$!
none_in() {
	local n

	n=$(nft list chain inet judge in | sed -n 's/.* counter packets \([0-9]*\) .*/\1/p')
	[ "$n" = 0 ] || fail "$1: $n forged packets came in"
	step "$1: no forged packet came in"
}
held() {
	refute nft list table inet kernscale 2>/dev/null
	standing_by kernscale-held
	none_in "$1"
}
# The place of the table is its own again.
back() {
	check systemctl start kernscaled
	check wgctl vm wait --timeout=20s
	standing
	refute nft list table inet kernscale-held 2>/dev/null
	no_loss
	none_in "started"
}

dropin kernscaled '[Unit]' StartLimitIntervalSec=300 StartLimitBurst=2 '[Service]' RestartSec=100ms "$as_old"
check systemctl restart kernscaled
check wgctl vm wait --timeout=20s
traffic
give_up
step "start limit hit: $(nft list tables | tr '\n' ' ')"
refute systemctl start kernscaled
held "given up"
check systemctl reset-failed kernscaled
back

dropin kernscaled KillSignal=SIGKILL "$as_old"
traffic
check systemctl stop kernscaled
step "stopped by SIGKILL: $(nft list tables | tr '\n' ' ')"
held "stopped"
back

# That it would have been seen.
check nft delete table inet judge
check nft -f - <<-X
	table inet judge {
		chain in { type filter hook prerouting priority -200; iifname "br0" ip saddr $BOB4 counter; }
	}
X
sleep 1
refute grep -q ' counter packets 0 ' <<<"$(nft list chain inet judge in)"

#!/bin/bash
# The resolver dies while a mesh is up whose server has a name: traffic goes on, status and an unknown
# name are answered soon, and when the server has restarted the nodes find it by the last good address.
#
#   alice 198.51.100.11 \
#                        inet - pub 198.51.100.10, coord.test (coordinator, relay; drops questions)
#   bob   198.51.100.12 /
. "$(dirname "$0")/lib.sh"
hosts alice bob
# What a resolver would say stands in a hosts file of the nodes' own, until it dies.
echo '198.51.100.10 coord.test' >"$W/hosts"
echo 'nameserver 198.51.100.10' >"$W/resolv.conf"
cat >"$W/under" <<-EOF
	#!/bin/sh
	mount --bind $W/hosts /etc/hosts && mount --bind $W/resolv.conf /etc/resolv.conf && exec "\$@"
EOF
chmod 755 "$W/under"
chmod 644 "$W/hosts" "$W/resolv.conf"
check on pub nft -f - <<-EOF
	table inet deaf { chain in { type filter hook input priority 0; udp dport 53 drop; tcp dport 53 drop; }; }
EOF
URL=https://coord.test
CERT_NAME=DNS:coord.test
NODE_UNDER=$W/under
start_coordinator
join alice bob
check wait_until 20 reach alice bob
check wait_until 20 direct alice bob
start traffic alice ping -i 0.05 -W 1 "$(ip4 bob)"

step "the resolver is dead"
: >"$W/hosts"
asks() { ip netns exec "${P}alice" "$NODE_UNDER" "$BIN/wgctl" --socket "$W/alice/run/kernscaled.sock" "$@"; }
# within MSEC COMMAND...: below the 2 s that wgctl gives the daemon for a name, and the 5 s that a resolver takes. It
# takes longer only if it does three times: this machine has other work.
within() {
	local t

	for _ in 1 2 3; do
		t=$(now_msec)
		"${@:2}"
		(in_time "$1" "$t" "${*:2}") && return
	done
	fail "line ${BASH_LINENO[0]}: three times"
}
within 1900 expect 0 asks status
within 4500 expect 1 asks ping nosuchname
said 'there is no peer "nosuchname"'
within 1900 expect 0 asks ping -c 1 bob

step "the server restarts"
stop coordinator
lost() { asks status | grep -q 'Not connected'; }
check wait_until 10 lost
run_coordinator
check wait_until 30 not lost
grep 'control: running' "$LOGS/alice.log" | tail -n 1
within 1900 expect 0 asks status
check wait_until 10 reach bob alice
all_answered traffic

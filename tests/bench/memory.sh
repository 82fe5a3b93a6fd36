#!/bin/bash
# What the daemon keeps in memory (RssAnon) with 3 peers and with 1,000, after joining, with one relay and
# the system's certificate authorities loaded. The 1,000 are rows in the coordinator's database: nodes
# that registered once and are away, with keys, names, addresses and endpoints of their own.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice, n1, n2, n3
. "$(dirname "$0")/../scenario/lib.sh"
need sqlite3 wg
hosts alice
for i in 1 2 3; do host n$i 198.51.100.2$i; done
start_coordinator
for i in 1 2 3; do join n$i; done
: >"$OUT/figures"

peers() {
	[ "$(on alice wg show kernscale0 peers | wc -l)" -ge "$1" ]
}
measure() {
	wait_until 60 peers "$1" || fail "alice has $(on alice wg show kernscale0 peers | wc -l) peers, not $1"
	# Every peer was sent something once, and the daemon has come to rest.
	wgctl alice status >"$LOGS/status-$1"
	check wgctl alice ping -c 3 n1
	sleep 3
	echo "$1 peers: $(status_of alice RssAnon) KiB"
	echo "$1 $(status_of alice RssAnon)" >>"$OUT/figures"
}

join alice
measure 3
stop coordinator
check sqlite3 "$W/coord/db.sqlite" <<-EOF
	WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 997)
	INSERT INTO nodes(user_id, machine_key, node_key, disco_key, ipv4, ipv6, hostname, given_name,
		given_fixed, tags, ephemeral, method, created_at, expires_at, last_seen_at, cap, host_info,
		home, endpoints)
	SELECT 1, randomblob(32), randomblob(32), randomblob(32), '100.70.' || (i / 250) || '.' || (i % 250 + 1),
		'fd7a:115c:a1e0::4606:' || printf('%x', i), 'synthetic-' || i, 'synthetic-' || i,
		0, '[]', 0, 1, 1760000000000000000, 0, 1760000000000000000, 113,
		'{"OS":"linux","Hostname":"synthetic-' || i || '"}', 900,
		'["203.0.113.' || (i % 250 + 1) || ':41641","10.0.' || (i / 250) || '.' || (i % 250 + 1) || ':41641"]'
	FROM n;
EOF
run_coordinator
measure 1000

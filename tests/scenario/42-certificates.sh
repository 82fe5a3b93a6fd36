#!/bin/bash
# limit: 120 s
# The certificate of the coordinator and its relay has expired: who is in is told so by status, for both, and
# loses nothing; who wants in is told so by `up`, which ends with its status; nobody storms the server, and with
# a good certificate all is well.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
#                                                 - carol 198.51.100.13
. "$(dirname "$0")/lib.sh"
need openssl
hosts alice bob carol
# An authority, and two certificates of it for one key.
new_key=(req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
cert() { # cert SERIAL DAYS
	check openssl x509 -req -in "$W/tls.req" -CA "$W/ca.pem" -CAkey "$W/ca.key" -set_serial "$1" -days "$2" \
		-extfile <(echo subjectAltName=IP:198.51.100.10) -out "$W/leaf.pem" 2>/dev/null
	cat "$W/leaf.pem" "$W/ca.pem"
}
check openssl "${new_key[@]}" -x509 -days 30 -subj /CN=authority -keyout "$W/ca.key" -out "$W/ca.pem" 2>/dev/null
check openssl "${new_key[@]}" -new -subj /CN=198.51.100.10 -keyout "$W/tls.key" -out "$W/tls.req" 2>/dev/null
cert 1 30 >"$W/good.pem"
cert 2 -1 >"$W/expired.pem"
cp "$W/good.pem" "$W/tls.pem"
chmod 644 "$W/tls.pem"
chown "$NODE_USER" "$W/tls.key"
start_coordinator
join alice bob
start_node carol
check wait_until 20 reach alice bob
start traffic alice ping -i 0.05 -W 1 "$(ip4 bob)"
start back bob ping -i 0.05 -W 1 "$(ip4 alice)"
both_direct 20 alice bob

stop coordinator
cat "$W/expired.pem" >"$W/tls.pem"
run_coordinator
check on pub nft -f - <<-EOF
	table inet calls { chain in { type filter hook input priority 0; tcp dport 443 tcp flags syn / syn,ack counter; }; }
EOF
said_so() { wgctl alice status | grep -qE "$1"; }
check wait_until 15 said_so 'Not connected.*https://198.51.100.10.*certificate has expired'
check wait_until 15 said_so 'home relay .*certificate has expired'
expect 0 wgctl alice status
expect 5 wgctl carol up --login-server="$URL" --auth-key="file:$W/key" --hostname=carol --timeout=5s
said 'certificate has expired'
nothing_left carol
calls() { on pub nft list table inet calls | sed -n 's/.*packets \([0-9]*\).*/\1/p'; }
n=$(calls)
sleep 5
n=$(($(calls) - n))
step "three nodes dialled $n times in 5 s"
[ $n -lt 90 ] || fail "they storm the server: $n in 5 s"
[ "$(grep -c 'certificate' "$LOGS/alice.log")" -lt 200 ] || fail "the log is full of it"

stop coordinator
cat "$W/good.pem" >"$W/tls.pem"
run_coordinator
for n in alice bob; do check wait_until 40 connected $n; done
good() { ! said_so 'certificate|Not connected'; }
check wait_until 40 good
# carol was told to join, and has gone on trying.
check wait_until 40 reach alice carol
all_answered traffic
all_answered back

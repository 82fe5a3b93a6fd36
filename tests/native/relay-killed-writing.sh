#!/bin/bash
# limit: 90 s
# kernscale-relay is killed at each call in turn that changes a file while it starts for the first time (a write half
# done), when it makes its key and its certificate: the next start comes up, with whole files that nobody else may read,
# and with the key that was there, if one was.
. "$(dirname "$0")/lib.sh"
need_programs kernscale-relay
need openssl
files() {
	find "$W/relay" -type f -printf '%f %m\n' | sort | tr '\n' ' '
}

dead_or_up() {
	not running relay || grep -q 'DERP on TCP' "$LOGS/relay.log"
}

deaths=0
for n in $(seq 40); do
	rm -rf "$W/relay"
	# shellcheck disable=SC2046 # words
	start relay $(preload killer "KILL_BELOW=$W/relay" "KILL_FILE_AT=$n") "$BIN/kernscale-relay" --listen "127.0.0.1:$PORT" \
		--stun off --user "$(id -u):$(id -g)" --state "$W/relay" --hostname 127.0.0.1
	disown # the shell would report each death
	wait_until 10 dead_or_up || fail "neither dead nor up: $(cat "$LOGS/relay.log")"
	if running relay; then
		stop relay KILL
		break
	fi
	unset "PIDS[relay]"
	deaths=$((deaths + 1))
	refute grep . <(find "$W/relay" -type f ! -perm 600)
	old=$(cat "$W/relay/relay.key" 2>/dev/null)
	start_relay next "$PORT" --stun off --state "$W/relay"
	stop next KILL
	rm "$LOGS/next.log"
	step "killed at call $n: $(files)"
	[ "$(files)" = "relay.crt 600 relay.key 600 relay.tls.key 600 " ] || fail "killed at call $n: $(files)"
	[ -z "$old" ] || [ "$(cat "$W/relay/relay.key")" = "$old" ] || fail "killed at call $n: the key is another one"
	check openssl ec -in "$W/relay/relay.tls.key" -noout -check 2>/dev/null
	same=$(openssl x509 -in "$W/relay/relay.crt" -noout -pubkey)
	[ "$(openssl ec -in "$W/relay/relay.tls.key" -pubout 2>/dev/null)" = "$same" ] || fail "killed at call $n: the certificate is not of that key"
done
[ $deaths -ge 9 ] || fail "only $deaths deaths: is the shim at work?"
step "killed at $deaths calls"

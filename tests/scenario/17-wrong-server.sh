#!/bin/bash
# A server that does not answer, a name that does not exist, and one that is no coordination server:
# each a sentence and exit status 5 or 1 within the time asked for; nothing is left, and what had been
# joined before is still there.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#   web 198.51.100.20 (a relay and a TLS server nobody vouches for)
. "$(dirname "$0")/lib.sh"
need openssl
hosts alice
host web 198.51.100.20
start_coordinator
start_node alice

failing_up() {
	wgctl alice up --login-server="$1" --auth-key="file:$W/key" --hostname=alice --timeout=4s
}
t=$(now_msec)
expect 5 failing_up http://198.51.100.99:8080
said '198\.51\.100\.99'
in_time 8000 "$t" "told that nobody answers"
nothing_left alice
expect 5 failing_up http://198.51.100.10:9
said 'refused'
# Who sets no time limit is told all the same, and status says why.
expect 5 wgctl_within 20 alice up --login-server=http://198.51.100.10:9 --auth-key="file:$W/key"
said 'refused.*goes on trying'
expect 4 wgctl alice status
said 'refused'
expect 4 wgctl alice ping bob
expect 2 failing_up not-a-url
expect 2 failing_up ftp://198.51.100.10

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=198.51.100.20 \
	-keyout "$W/web.key" -out "$W/web.pem" 2>/dev/null
start tls web openssl s_server -www -accept 8443 -key "$W/web.key" -cert "$W/web.pem"
start http web "$BIN/kernscale-relay" --listen 198.51.100.20:8080 --stun off --tls none \
	--state "$W/relay" --user "$NODE_USER"
for port in 8080 8443; do
	check wait_until 10 on web bash -c "exec 3<>/dev/tcp/198.51.100.20/$port"
done
expect 5 failing_up http://198.51.100.20:8080
said '404|coordination server|/key'
expect 5 failing_up https://198.51.100.20:8443
said 'certificate'
nothing_left alice

expect 0 up alice
key=$(key_of alice)
# Another server needs --force-reauth or a logout, and is told so; this one's session stays, with --reset as well.
expect 1 wgctl alice up --login-server=http://198.51.100.99:8080 --auth-key="file:$W/key" --timeout=4s
said 'logged in to https://198\.51\.100\.10; .*logout.*--force-reauth'
expect 1 wgctl alice up --reset --login-server=http://198.51.100.99:8080 --auth-key="file:$W/key" --timeout=4s
expect 0 wgctl alice status
[ "$(key_of alice)" = "$key" ] || fail "the key was lost"

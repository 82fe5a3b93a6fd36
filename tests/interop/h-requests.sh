#!/bin/bash
# limit: 240 s
# Everything a stock node asks of its coordinator beyond joining: login by a person, names, routes, exit
# node, tags it may not have, pings of each kind with a node of ours, and what no coordinator but the
# official one grants (certificates, identity tokens, funnel): refused in words, and the mesh stays up.
#
#   alice (ours)  - NAT 198.51.100.11 -+- inet - pub 198.51.100.10: coordinator, relay and STUN
#   stan  (stock) - NAT 198.51.100.12 -+
. "$(dirname "$0")/lib.sh"
need_stock tailscaled tailscale
need curl
nats alice stan
start_coordinator
join alice
start_stock stan

step "a person lets stan in"
login() {
	ts stan up --login-server="$URL" --hostname=stan --accept-dns=false --timeout=60s
}
login >"$LOGS/login" 2>&1 &
pid=$!
wait_until 20 grep -q '/register/' "$LOGS/login" || fail "no URL to log in at: $(cat "$LOGS/login")"
id=$(sed -n 's|^.*/register/||p' "$LOGS/login" | head -n 1)
expect 0 admin nodes register --user mesh --key "$id"
check wait $pid
expect 0 ts stan status
said 'alice'

step "a new name, routes, an exit node"
sees() {
	wgctl alice status | grep -qE "$1"
}
check ts stan set --hostname=stanley
wait_until 15 sees ' stanley ' || fail "alice does not hear of the new name: $(wgctl alice status)"
check ts stan set --advertise-routes=10.7.0.0/24,fd00:7::/64 --advertise-exit-node --shields-up
check ts stan set --advertise-routes= --advertise-exit-node=false --shields-up=false
for _ in 1 2 3; do ts stan ping -c 1 alice; done

step "pings of each kind"
expect 0 ts stan ping --until-direct -c 20 alice
said 'via 198\.51\.100\.11:'
expect 0 ts stan ping --icmp -c 2 alice
said 'via ICMP'
expect 0 ts stan ping --tsmp -c 2 alice
said 'via TSMP'
expect 1 ts stan ping --peerapi -c 1 --timeout 3s alice
said 'no PeerAPI'

step "what is not granted is refused in words"
expect 1 ts stan cert stan.mesh.test
said 'does not support getting TLS certs'
expect 1 timeout 15 ip netns exec "${P}stan" tailscale --socket="$W/stan/sock" serve --bg 8080
said 'not implemented'
expect 1 ts stan funnel --bg 8080
said 'not available'
# localapi PATH [ARGUMENT OF curl...]
localapi() {
	on stan curl -s --max-time 15 --unix-socket "$W/stan/sock" -X POST "http://local-tailscaled.sock/localapi/v0/$1" "${@:2}"
}
expect 0 localapi 'id-token?aud=x'
said 'not implemented'
expect 0 localapi 'query-feature?feature=funnel'
said 'not implemented'
expect 0 localapi 'set-dns?name=_acme-challenge.stan.mesh.test&value=x'
said 'not implemented'
expect 0 localapi alpha-set-device-attrs -X PATCH -d '{"custom:k":"v","custom:n":null}'
said 'not implemented|501'
expect 0 ts stan lock status
said 'NOT enabled'
expect 1 ts stan lock init --confirm "$(grep -o 'tlpub:[0-9a-f]*' <<<"$SAID")"
said 'not supported'

step "and the mesh stays up"
expect 0 ts stan ping -c 1 alice
expect 0 ts stan status
said 'alice'

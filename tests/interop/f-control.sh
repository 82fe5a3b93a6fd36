#!/bin/bash
# limit: 180 s
# The control client alone against a stock Headscale over TLS: first map, what peers hear of each other,
# bad keys, expiry and the new node key, deletion, the server's restart and its other key, logout.
# No tunnel is made: this runs on any kernel.
#
#   alice 198.51.100.2 -+
#   bob   198.51.100.3 -+- inet - pub 198.51.100.10: headscale
. "$(dirname "$0")/lib.sh"
. "$TOP/tests/talk.sh"
CTLCAT=$BIN/tests/interop/ctlcat
need_programs tests/interop/ctlcat
inet
host pub 198.51.100.10
host alice 198.51.100.2
host bob 198.51.100.3

# node NAME ARGUMENT...: ctlcat there
node() {
	talking "$1" --server "$URL" --ca "$W/tls.pem" "${@:2}"
	start "$1" "$1" "${TALKING[@]}"
}

id_of() {
	sed -nE 's/^ *[0-9]+ SELF ([0-9]+) .*/\1/p' "$LOGS/$1.log" | tail -n 1
}

serve() {
	rm -f "$W/coord/admin.sock"
	start headscale pub headscale -c "$W/coord/config.yaml" serve
	wait_until 20 test -S "$W/coord/admin.sock" || fail "headscale does not come up again"
}

cat >"$W/derp.yaml" <<-EOF
	regions:
	  901:
	    regionid: 901
	    regioncode: far
	    regionname: Far
	    nodes: [{name: 901a, regionid: 901, hostname: 198.51.100.20, ipv4: 198.51.100.20, derpport: 443}]
EOF
start_headscale false "$W/derp.yaml"
key=$(cat "$W/key")

step "alice logs in"
node alice --auth-key "$key" --home 901
hears alice 'STATE running'
check has alice 'MAP first peers=0 .* allow-all=yes'
check has alice 'PIN https://198.51.100.10'

step "bob logs in, alice hears of him, of his home and of his endpoints"
node bob --auth-key "$key"
hears bob 'STATE running'
check has bob 'now [0-9]+ alice\..* home=901'
hears alice 'PEER ADDED'
tell bob home 901
echo 'endpoints 198.51.100.3:41641 [2001:db8::3]:41641' >"$W/bob.in"
hears alice 'now [0-9]+ bob\..* home=901'
hears alice 'endpoint \[2001:db8::3\]:41641'

step "keys that are none"
for k in "hskey-auth-000000000000-$(printf '%064d' 0)" "${key%?}_" nonsense; do
	mkdir -p "$W/carol"
	on alice timeout 10 "$CTLCAT" --server "$URL" --dir "$W/carol" --ca "$W/tls.pem" --auth-key "$k" \
		--for 2 >"$LOGS/carol.log"
	grep -q 'FAILED for good: ' "$LOGS/carol.log" || fail "key $k: $(cat "$LOGS/carol.log")"
	[ "$(grep -c 'STATE authenticating' "$LOGS/carol.log")" = 1 ] || fail "a refused key is sent again"
	rm -rf "$W/carol"
done

step "a certificate that nobody vouches for"
mkdir -p "$W/dave"
on alice env -u SSL_CERT_FILE timeout 10 "$CTLCAT" --server "$URL" --dir "$W/dave" --auth-key "$key" --for 2 >"$LOGS/dave.log" 2>&1
grep -q 'certificate' "$LOGS/dave.log" || fail "an unknown certificate is not named: $(cat "$LOGS/dave.log")"
if grep -q 'NODEKEY\|PIN' "$LOGS/dave.log"; then fail "it went on in spite of the certificate"; fi

step "bob's key expires and is renewed: alice sees one node, with a new key"
mark alice
mark bob
check hs nodes expire -i "$(id_of bob)" >/dev/null
hears bob 'STATE expired'
hears alice 'now [0-9]+ bob\..* usable=no'
mark alice
tell bob login "$key"
hears bob 'NODEKEY'
hears bob 'STATE running'
hears alice 'now [0-9]+ bob\..* usable=yes'
if has alice 'PEER (ADDED|REMOVED)'; then fail "the new key made another node of bob"; fi

step "the server restarts"
mark alice
mark bob
stop headscale
hears alice 'STATE connecting'
serve
hears alice 'STATE running'
hears bob 'STATE running'
if has alice 'REGISTERED'; then fail "a restart of the server needs no login"; fi

step "the server comes back with another key: nobody follows it before being told"
mark alice
stop headscale
mv "$W/coord/noise.key" "$W/noise.old"
serve
hears alice 'STATE server key changed'
stop headscale
mv "$W/noise.old" "$W/coord/noise.key"
mark alice
mark bob
serve
for n in alice bob; do
	echo kick >"$W/$n.in" # who has come back alone meanwhile does not say so again
	hears $n 'STATE running'
done

step "alice is deleted: bob forgets her, she finds out with her next word"
mark bob
check hs nodes delete -i "$(id_of alice)" --force >/dev/null
hears bob 'PEER REMOVED'
tell alice endpoints 198.51.100.2:1
hears alice 'STATE needs login'

step "bob logs out"
expiry() {
	hs nodes list -o json 2>/dev/null | grep -q '"expiry": "20'
}
refute expiry
tell bob logout
hears bob 'LOGGEDOUT ok'
expiry || fail "the server does not know that bob has gone"

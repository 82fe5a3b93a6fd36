#!/bin/bash
# The built programs hold no private key of the tests' data, as text or as bytes, and none in PEM (CVE-2022-0664: what
# is in a program is everybody's).
. "$(dirname "$0")/lib.sh"
need od
need_programs kernscaled wgctl kernscale-coordinator kernscale-relay
grep -rhoiE '"?[a-z_]*priv[a-z_]*"?[ :=]+"?[a-z]*:?[0-9a-f]{64}' "$TOP/tests/data" | grep -oE '[0-9a-f]{64}$' | sort -u >"$W/keys"
step "$(wc -l <"$W/keys") private keys in the tests' data"
[ "$(wc -l <"$W/keys")" -ge 10 ] || fail "too few: are they written otherwise now?"
# clean FILE
clean() {
	! grep -aqiF -f "$W/keys" "$1" && ! grep -aqE -e '-----BEGIN [A-Z ]*PRIVATE KEY' "$1" &&
		! od -An -v -tx1 "$1" | tr -d ' \n' | grep -qF -f "$W/keys"
}

for p in kernscaled wgctl kernscale-coordinator kernscale-relay; do
	clean "$BIN/$p" || fail "$p has a private key in it"
done
# and this would be seen
key=$(head -n 1 "$W/keys")
(cat "$BIN/wgctl" && for ((i = 0; i < 64; i += 2)); do printf '%b' "\\x${key:i:2}"; done) >"$W/bytes"
(cat "$BIN/wgctl" && echo "privkey:$key") >"$W/text"
refute clean "$W/bytes"
refute clean "$W/text"

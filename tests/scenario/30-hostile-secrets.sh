#!/bin/bash
# Secrets: a mesh comes up, talks and is asked everything, all programs logging at debug level. No
# private key of the state and runtime folders, whether Kernscale's, WireGuard's or TLS's, and no pre-auth key
# stands in any log, answer, command line or environment; the files are 0600; nobody but root can read the
# processes' memory, and none dumps core.
#
#   alice 198.51.100.11 \
#                        inet - pub 198.51.100.10 (coordinator, relay)
#   bob   198.51.100.12 /
. "$(dirname "$0")/lib.sh"
need setpriv wg
hosts alice bob
make_cert
coordinator_config true ""
printf 'log:\n  level: debug\n' >>"$W/coord/config.yaml"
start_coordinator
run_relay --stun off --hostname relay.test --verbose debug
join alice bob
check running relay
check wait_until 10 on pub sh -c 'ss -Hltn sport 8443 | grep -q .' # then it has its keys
check wait_until 20 reach alice bob

step "asked everything"
for n in alice bob; do
	check wgctl $n status --json
	check wgctl $n netcheck
	nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
	check on $n "${nobody[@]}" curl -sf --unix-socket "$W/$n/run/kernscaled.sock" http://x/v1/status
	check on $n "${nobody[@]}" curl -sf --unix-socket "$W/$n/run/kernscaled.sock" http://x/v1/prefs
done >"$LOGS/answers.log"
for c in users preauthkeys nodes; do
	check admin $c list -o json
done >>"$LOGS/answers.log"
for answer in '"hskey-auth-[0-9A-Za-z_-]*-\*\*\*"' '"nodeKey"' '"BackendState"'; do
	check grep -q "$answer" "$LOGS/answers.log"
done
for pid in "${PIDS[@]}"; do tr '\0' '\n' <"/proc/$pid/cmdline"; tr '\0' '\n' <"/proc/$pid/environ"; done >"$LOGS/processes.log"

step "what must stand nowhere"
# Private keys as they are written: 64 hex digits, in any file that is not public.
: >"$W/secrets"
# secrets_of FOLDER NUMBER: which has at least so many
secrets_of() {
	grep -rhaoE 'privkey:[0-9a-f]{64}|"PrivateKey": *"[^"]+"' "$W/$1" | grep -oE '[0-9a-f]{64}' | sort -u >"$W/found"
	[ "$(wc -l <"$W/found")" -ge "$2" ] || fail "only $(wc -l <"$W/found") private keys found in $1"
	cat "$W/found" >>"$W/secrets"
}
for n in alice bob; do
	secrets_of $n/state 2 # machine and node
	secrets_of $n/run 1   # disco
	on $n wg show kernscale0 private-key >>"$W/secrets" || fail "wg does not show the key of $n"
done
secrets_of coord 2 # Noise and relay
secrets_of relay 1
# The lines of PEM: one that somebody was given by hand, one that the relay has made for itself.
for f in "$W/tls.key" "$W/relay/relay.tls.key"; do
	grep -v '^-----' "$f" >"$W/found" || fail "no private key in $f"
	awk 'length >= 40' "$W/found" >>"$W/secrets"
done
cat "$W/key" >>"$W/secrets"
[ "$(awk 'length >= 40' "$W/secrets" | sort -u | wc -l)" -ge 16 ] || fail "too few secrets: $(sed 's/\(........\).*/\1/' "$W/secrets")"
grep -q 'control: register: ' "$LOGS/alice.log" || fail "alice does not log at debug level"
grep -q 'connection [0-9]*: register: ' "$LOGS/coordinator.log" || fail "the coordinator does not log at debug level"
if grep -rlF -f "$W/secrets" "$LOGS"; then
	fail "a secret stands in the files named above"
fi

step "files and processes"
[ -e "$W/alice/run/disco.key" ] || fail "no disco key in the runtime folder"
open=$(find "$W/alice/state" "$W/alice/run" "$W/bob/state" "$W/bob/run" "$W/coord" "$W/relay" -type f ! -name config.yaml ! -perm 600)
[ -z "$open" ] || fail "not of mode 600: $open"
for p in coordinator relay alice bob; do
	# The owner of what is in /proc is root where a process cannot be dumped.
	[ "$(stat -c %u "/proc/${PIDS[$p]}/environ")" = 0 ] || fail "$p can be dumped and traced by its own user"
	grep -q '^Max core file size  *0  *0 ' "/proc/${PIDS[$p]}/limits" || fail "$p may write a core file"
done

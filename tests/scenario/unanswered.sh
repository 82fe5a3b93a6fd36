# shellcheck shell=bash
# unanswered.sh: what alice's own WireGuard sends to bob comes to him and is not answered. Comes after lib.sh; the scenario
# has `sends ADDRESS`, which puts her WireGuard up to it, sends, and succeeds if she is answered.
#
#   count_from_tunnel ADDRESS…     from now on bob's kernel counts what comes to him out of the tunnel for each of these
#   unanswered WHEN ADDRESS…       something comes to bob for each, nobody answers
count_from_tunnel() {
	local a

	{
		echo 'table inet came { chain first { type filter hook prerouting priority -300;'
		for a in "$@"; do
			case $a in *:*) echo "iifname kernscale0 ip6 daddr $a counter" ;; *) echo "iifname kernscale0 ip daddr $a counter" ;; esac
		done
		printf '}\n}\n'
	} | on bob nft -f - || fail "bob's kernel does not count"
}

came() {
	on bob nft list chain inet came first | sed -n "s/.* daddr $1 counter packets \([0-9]*\) .*/\1/p"
}

# tried ADDRESS BEFORE: more has come for it than that. Alice's own daemon may have put her peers right meanwhile.
tried() {
	! sends "$1" || answered+=" $1"
	[ "$(came "$1")" -gt "$2" ]
}

unanswered() {
	local a answered=''

	for a in "${@:2}"; do
		wait_until 30 tried "$a" "$(came "$a")" || fail "$1: nothing came to bob for $a"
	done
	[ -z "$answered" ] || fail "$1:$answered answers"
}

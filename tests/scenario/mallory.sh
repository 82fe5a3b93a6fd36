# shellcheck shell=bash
# mallory.sh: mallory, who is no member, sends as bob from outside of the tunnel, while alice's daemon comes to harm.
# Comes after lib.sh, `hosts alice bob` and alice's node below a service manager (`manage alice`).
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice   198.51.100.11
#                                                 - bob     198.51.100.12
#                                                 - mallory 198.51.100.66
#
#   begin         alice pings bob, and mallory sends (attack: mallory alone)
#   end TEXT      no ping was lost, none of mallory's packets got in, of which there were some
#   got_in        echo requests that alice's own kernel took: bob sends none meanwhile
#   in_now        more than $before
#   owned         alice's table stands, and nobody but its owner can take it away
#   end_alice KILL|HUP  kills her daemon, or has it restarted; it is over then, and perhaps there is the next one
#   ready         her daemon's start is over; is_back waits until it also answers
host mallory 198.51.100.66
up alice || fail "alice does not come up"
join bob
alice_ip=$(ip4 alice) bob_ip=$(ip4 bob)
expect 0 wgctl alice ping --until-direct -c 20 --timeout 5s bob
start first alice ping -q -i 0.1 "$bob_ip"
both_direct 10 alice bob
map_settled alice bob
stop first INT
ip_batch mallory <<-X
	addr add $bob_ip/32 dev lo
	route add $alice_ip/32 via 198.51.100.11
X
before=0 sent_before=0

got_in() {
	on alice nstat -asz IcmpInEchos | awk '/IcmpInEchos/ { print $2 }'
}

sent() {
	on mallory nstat -asz IcmpOutEchos | awk '/IcmpOutEchos/ { print $2 }'
}

at_it() {
	[ $(($(sent) - sent_before)) -gt 20 ]
}

in_now() {
	[ "$(got_in)" -gt "$before" ]
}

attack() {
	before=$(got_in) sent_before=$(sent)
	start attack mallory ping -q -i 0.02 -I "$bob_ip" -W 1 "$alice_ip"
}

begin() {
	rm -f "$LOGS/quiet.log"
	start quiet alice ping -i 0.05 -W 1 "$bob_ip"
	wait_until 10 grep -q ' bytes from ' "$LOGS/quiet.log" || fail "alice does not reach bob"
	attack
}

end() {
	wait_until 15 at_it || fail "$1: mallory was not at it"
	[ "$(got_in)" = "$before" ] || fail "$1: mallory got in, $(($(got_in) - before)) times"
	all_answered quiet
	stop attack INT
	step "$1: none of mallory's $(($(sent) - sent_before)) packets got in"
}

owned() {
	on alice nft list table inet kernscale >/dev/null 2>&1 && ! on alice nft delete table inet kernscale 2>/dev/null
}

ready() {
	[ -e "$W/alice/manager/ready" ]
}

# over PID: that daemon has ended and its manager knows, whether the next one runs or not.
over() {
	! kill -0 "$1" && [ "$(pid_of alice)" != "$1" ]
}

# end_alice SIGNAL: to her daemon; to its manager if it is HUP
end_alice() {
	local pid to

	pid=$(pid_of alice) to=$pid
	[ "$1" != HUP ] || to=${PIDS[alice]}
	kill "-$1" "$to"
	wait_until 30 over "$pid" || fail "it lives on"
}

is_back() {
	wait_until 30 ready || fail "kernscaled is not back"
	wait_until 30 wgctl alice status || fail "kernscaled does not answer"
}

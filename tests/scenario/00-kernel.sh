#!/bin/bash
# The kernel under test can do what Kernscale is built on: WireGuard between two hosts behind NATs,
# a stateful nft table with a tproxy rule, and a bridge between them.
#
#   left (192.168.1.2) - rleft 198.51.100.11 - inet - rright 198.51.100.12 - (192.168.2.2) right
. "$(dirname "$0")/lib.sh"
need wg nft ping

inet
nat left 198.51.100.11 192.168.1
nat right 198.51.100.12 192.168.2
step "kernel $(uname -r)"

for n in left right; do
	wg genkey >"$W/$n.key"
	wg pubkey <"$W/$n.key" >"$W/$n.pub"
	ip -n "$P$n" link add wg0 type wireguard || fail "this kernel has no WireGuard"
	on $n wg set wg0 listen-port 41641 private-key "$W/$n.key"
	ip -n "$P$n" link set wg0 mtu 1280 up
done
ip -n "${P}left" addr add 100.64.0.1/10 dev wg0
ip -n "${P}right" addr add 100.64.0.2/10 dev wg0
# Both routers keep the port, so both sides know where the other will be: a hole is punched.
on left wg set wg0 peer "$(cat "$W/right.pub")" allowed-ips 100.64.0.2/32 \
	endpoint 198.51.100.12:41641 persistent-keepalive 1
on right wg set wg0 peer "$(cat "$W/left.pub")" allowed-ips 100.64.0.1/32 \
	endpoint 198.51.100.11:41641 persistent-keepalive 1

handshaken() {
	[ "$(on "$1" wg show wg0 latest-handshakes | cut -f2)" -gt 0 ]
}
wait_until 15 handshaken left || fail "no handshake: $(on left wg show wg0)"
step "handshake"
check on left ping -q -c 3 -i 0.2 -W 2 100.64.0.2
step "ping through the tunnel"

# The hole is the NATs' own: the same cut by a firewall stops the tunnel.
firewall_no_udp right
refute on left ping -q -c 1 -W 1 100.64.0.2
firewall_open right
wait_until 10 on left ping -q -c 1 -W 1 100.64.0.2 || fail "the tunnel did not come back"
step "cut and restored"

check on left nft -f - <<'EOF'
table inet probe {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
		udp dport 41641 @th,64,48 0x5453f09f92ac tproxy ip to :9 accept
	}
	chain in {
		type filter hook input priority filter; policy accept;
		iifname "wg0" ct state established,related accept
		iifname "wg0" drop
	}
}
EOF
check on left ping -q -c 1 -W 4 100.64.0.2
refute on right ping -q -c 1 -W 1 100.64.0.1
step "stateful filter: replies pass, new flows do not"

# shellcheck shell=bash
# plain.sh: what our node is compared with: plain `wg` at our MTU and a two-rule stateful nft table.

# plain_wg A B: hosts A and B (198.51.100.x, given as NAME=ADDR) get wg0 with 10.66.0.1 and .2
plain_wg() {
	local n i=0 a=${1%%=*} b=${2%%=*}

	for n in "$a" "$b"; do
		i=$((i + 1))
		wg genkey >"$W/$n.key"
		wg pubkey <"$W/$n.key" >"$W/$n.pub"
		ip -n "$P$n" link add wg0 type wireguard || fail "this kernel has no WireGuard"
		on "$n" wg set wg0 listen-port 51820 private-key "$W/$n.key"
		ip -n "$P$n" link set wg0 mtu 1280 up
		ip -n "$P$n" addr add 10.66.0.$i/24 dev wg0
		check on "$n" nft -f - <<-EOF
			table inet plain {
				chain in {
					type filter hook input priority filter; policy accept;
					iifname "wg0" ct state established,related accept
					iifname "wg0" ct state new accept
				}
			}
		EOF
	done
	check on "$a" wg set wg0 peer "$(cat "$W/$b.pub")" allowed-ips 10.66.0.2/32 endpoint "${2#*=}:51820"
	check on "$b" wg set wg0 peer "$(cat "$W/$a.pub")" allowed-ips 10.66.0.1/32 endpoint "${1#*=}:51820"
	wait_until 10 on "$a" ping -q -c 1 -W 1 10.66.0.2 || fail "plain wg: no answer"
}

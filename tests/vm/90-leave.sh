#!/bin/bash
# `wgctl down`, `wgctl logout` and `make uninstall` take the mesh down and leave nothing: no interface, table,
# rule or route; and after the last, which finds a mesh with other names, no file, no unit and no process either.
STORY_ENDS=no
. "$(dirname "$0")/lib.sh"

nothing_left() {
	local x

	! ip -o link show type wireguard | grep . || fail "$1: an interface is left"
	! nft list tables | grep -w 'kernscale\|ks' || fail "$1: the table is left"
	x=$(ip rule; ip -6 rule; ip route show table 52 2>/dev/null; ip -6 route show table 52 2>/dev/null)
	! grep -E '^(52|60)[0-9][0-9]:|kernscale|ks0' <<<"$x" || fail "$1: rules or routes are left: $x"
	step "$1: nothing is left"
}
check wgctl vm down
nothing_left down
check wgctl vm up --timeout=30s
wait_until 20 ping -q -c 1 -W 2 $BOB4 || fail "no mesh after up"
check wgctl vm logout
nothing_left logout
check wgctl vm up --login-server=http://198.51.100.1:8080 --auth-key=file:/root/key --hostname=vm --timeout=60s
ip link show kernscale0 >/dev/null || fail "no interface after up"
check wgctl vm down
mkdir -p /etc/kernscale
printf '%s\n' 'interface: ks0' 'table: ks' 'rule-base: 6000' >/etc/kernscale/kernscaled.yaml
check systemctl restart kernscaled
check wgctl vm up --timeout=30s
ip link show ks0 >/dev/null || fail "no interface of another name"

# Stopped, so that nobody but the uninstallation itself can take it down.
check systemctl enable kernscaled
check systemctl stop kernscaled
cd "$TOP" || exit 1
make -s uninstall || fail "make uninstall"
nothing_left uninstall
for u in "${UNITS[@]}"; do
	refute systemctl -q is-active "$u"
	refute systemctl -q is-enabled "$u"
done
shopt -s nullglob
left=(/usr/{bin,sbin,lib/systemd/system,lib/sysusers.d,lib/tmpfiles.d,share/doc,share/man/man*,share/*/completions,share/zsh/*,share/fish/*}/{,_}{kernscale,wgctl}*
	/etc/systemd/system/*/kernscale* /run/kernscale*)
[ ${#left[@]} = 0 ] || fail "files are left: ${left[*]}"
step "no file, no unit"

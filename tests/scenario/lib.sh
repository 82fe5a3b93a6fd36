# shellcheck shell=bash
# lib.sh: what scenarios share; a scenario's first command is `. "$(dirname "$0")/lib.sh"`.
#
# Networks are made of namespaces whose names carry this process's number, so that nothing of the
# machine is touched and two runs do not meet. Everything made here is undone when the script ends,
# however it ends: processes by their number, then namespaces, then the work folder.
#
#   inet                       the internet: one bridge, 198.51.100.0/24 and 2001:db8::/64
#   host NAME ADDR             a host on it (public address)
#   nat NAME ADDR LAN          NAME at LAN.2 behind a router rNAME that masquerades as ADDR
#   nat_hard NAME ADDR LAN     the same with a new random port for every destination
#   hosts NAME…                the internet, pub at 198.51.100.10, and these hosts from .11 on
#   nats NAME…                 the same, but the first behind .11 at 192.168.1.2, the second behind .12 at 192.168.2.2
#   firewall_no_udp NAME       the router (or, without one, the host) of NAME drops all UDP
#   firewall_open NAME         and lets it through again
#   on NAME COMMAND...         run COMMAND there
#   start NAME WHERE COMMAND…  run it in the background, log in $LOGS/NAME.log; stop NAME ends it
#   wait_until SECONDS COMMAND…  poll COMMAND until it succeeds
#   all_answered NAME          ends the ping that was started as NAME; it must have lost nothing
#   step TEXT, fail TEXT, skip TEXT, check COMMAND…
set -u
umask 077

SCENARIO_NAME=$(basename "$0" .sh)
HERE=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
TOP=$(realpath "$HERE/../..")
BIN=${KERNSCALE_BUILD:-build}
case $BIN in /*) ;; *) BIN=$TOP/$BIN ;; esac
P=ks$$-
OUT=${OUT:-$(mktemp -d)}
LOGS=$OUT/$SCENARIO_NAME
W=$(mktemp -d "${TMPDIR:-/tmp}/kernscale-scenario.XXXXXX")
chmod 755 "$W"
rm -rf "$LOGS"
mkdir -p "$LOGS"
declare -A PIDS=()
SPACES=()
# An emulated processor is some ten times slower.
[ "${KERNEL_INSIDE:-}" != vm ] || WAIT_FACTOR=$((${WAIT_FACTOR:-1} * 3))
# What AddressSanitizer and LeakSanitizer find counts also at programs whose end nobody looks at.
case $BIN in
*/san-address*)
	mkdir -m 1777 "$W/san"
	export ASAN_OPTIONS="detect_leaks=1:log_path=$W/san/report${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
	STOP_TRIES=600 WAIT_FACTOR=$((${WAIT_FACTOR:-1} * 4))
	;;
esac
# shellcheck source=tests/words.sh
. "$TOP/tests/words.sh"

# undo: end the processes (gently, then by force), then take away namespaces and files.
undo() {
	local n pid

	for n in "${!PIDS[@]}"; do kill "${PIDS[$n]}" 2>/dev/null; done
	for n in "${!PIDS[@]}"; do
		for _ in $(seq "${STOP_TRIES:-60}"); do kill -0 "${PIDS[$n]}" 2>/dev/null || break; sleep 0.05; done
		kill -9 "${PIDS[$n]}" 2>/dev/null
	done
	for n in "${!PIDS[@]}"; do wait "${PIDS[$n]}" 2>/dev/null; done
	for n in "${SPACES[@]}"; do
		for pid in $(ip netns pids "$n" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
		ip netns del "$n" 2>/dev/null
	done
	[ ! -d "$W/san" ] || find "$W/san" -type f -exec cat {} + >"$LOGS/sanitizers.log"
	rm -rf "$W"
	PIDS=() SPACES=()
}

# What a scenario gives back of its own, whole or failed; it may define it anew. A trap of its own would
# take the place of the one below, and its last command that of the scenario's status.
at_end() { :; }

# Whether a private key or an auth key of this mesh stands in a log; the nodes log at debug level.
leaks() {
	[ -d "$W" ] || return 1 # the demo has cleared it away
	{
		grep -rhasoE -D skip 'privkey:[0-9a-f]{64}' "$W"/*/state "$W"/*/run "$W/coord" "$W/relay" | cut -d: -f2 | grep -v '^0*$'
		grep -hs -d skip -D skip '^hskey-auth-' "$W"/*
	} | sort -u >"$W/leaks"
	[ -s "$W/leaks" ] && grep -rlaF -f "$W/leaks" "$LOGS"
}

cleanup() {
	local r=$?

	trap '' INT TERM
	if leaks; then
		echo "FAIL: a secret stands in the files named above"
		r=1
	fi
	at_end
	undo
	if [ -s "$LOGS/sanitizers.log" ]; then
		cat "$LOGS/sanitizers.log"
		echo "FAIL: the sanitizers found something"
		r=1
	fi
	exit $r
}
trap cleanup EXIT
trap 'exit 143' INT TERM

on() {
	local where=$1

	shift
	ip netns exec "$P$where" "$@"
}

space() {
	ip netns add "$P$1" || fail "cannot make a network namespace"
	SPACES+=("$P$1")
	ip -n "$P$1" link set lo up
	on "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
		net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0 2>/dev/null
}

# cable A DEV-OF-A B DEV-OF-B
cable() {
	ip link add "$2" netns "$P$1" type veth peer name "$4" netns "$P$3"
	ip -n "$P$1" link set "$2" up
	ip -n "$P$3" link set "$4" up
}

# Many changes in one process: a process costs 20 ms in the test kernels.
ip_batch() {
	ip -n "$P$1" -batch - || fail "line ${BASH_LINENO[1]}: network of $1"
}

inet() {
	space inet
	ip_batch inet <<-EOF
		link add br0 type bridge
		link set br0 up
		addr add 198.51.100.1/24 dev br0
		addr add 2001:db8::1/64 dev br0 nodad
	EOF
}

host() {
	space "$1"
	cable inet "p$1" "$1" eth0
	ip -n "${P}inet" link set "p$1" master br0
	ip_batch "$1" <<-EOF
		addr add $2/24 dev eth0
		addr add 2001:db8::${2##*.}/64 dev eth0 nodad
		route add default via 198.51.100.1
		route add default via 2001:db8::1
	EOF
}

# $4 is what follows "masquerade" (nat_hard).
nat() {
	host "r$1" "$2"
	space "$1"
	cable "r$1" lan0 "$1" eth0
	ip -n "${P}r$1" addr add "$3.1/24" dev lan0
	ip_batch "$1" <<-EOF
		addr add $3.2/24 dev eth0
		route add default via $3.1
	EOF
	# Without the input rule a peer's early packet makes an entry here, and the host behind gets
	# another port than STUN saw. Real routers drop it.
	check on "r$1" nft -f - <<-EOF
		table ip nat {
			chain post { type nat hook postrouting priority srcnat; oifname eth0 masquerade ${4:-}; }
			chain in { type filter hook input priority 0; iifname eth0 ct state new drop; }
			chain through { type filter hook forward priority 0; iifname eth0 ct state new drop; }
		}
	EOF
}

nat_hard() {
	nat "$1" "$2" "$3" fully-random
}

hosts() {
	local n i=10

	inet
	host pub 198.51.100.10
	for n in "$@"; do host "$n" "198.51.100.$((++i))"; done
}

nats() {
	local n i=0

	inet
	host pub 198.51.100.10
	for n in "$@"; do nat "$n" "198.51.100.$((++i + 10))" "192.168.$i"; done
}

router_of() {
	if ip -n "${P}r$1" link show lo >/dev/null 2>&1; then echo "r$1"; else echo "$1"; fi
}

# Hooked where the packets of the host itself and those routed for it pass.
firewall_no_udp() {
	check on "$(router_of "$1")" nft -f - <<-EOF
		table inet noudp {
			chain through { type filter hook forward priority 0; meta l4proto udp drop; }
			chain in { type filter hook input priority 0; iifname eth0 meta l4proto udp drop; }
			chain out { type filter hook output priority 0; oifname eth0 meta l4proto udp drop; }
		}
	EOF
}

firewall_open() {
	check on "$(router_of "$1")" nft delete table inet noudp
}

start() {
	local name=$1 where=$2

	shift 2
	ip netns exec "$P$where" "$@" >>"$LOGS/$name.log" 2>&1 </dev/null &
	PIDS[$name]=$!
}

# unanswered NAME: how many packets of the ping started last as NAME got no answer; those that were on
# their way when it was ended do not count, nor are they many.
unanswered() {
	awk '/^PING / { split("", seen); last = n = 0 }
		match($0, /icmp_seq=[0-9]+ /) && / bytes from / {
			seq = substr($0, RSTART + 9, RLENGTH - 10) + 0
			if (!(seq in seen)) n++
			seen[seq]
			if (seq > last) last = seq
		}
		/ packets transmitted/ { sent = $1 }
		END { print !n ? "all" : last - n + (sent - last > 10 ? sent - last : 0) }' "$LOGS/$1.log"
}

# all_answered NAME: ends that ping, and nothing may be lost.
all_answered() {
	local n

	stop "$1" INT
	grep ' packets transmitted' "$LOGS/$1.log" | tail -n 1
	n=$(unanswered "$1")
	[ "$n" = 0 ] || fail "line ${BASH_LINENO[0]}: $n packets were lost"
}

# --- a mesh of our programs -------------------------------------------------------------------
#   start_coordinator             on host pub (198.51.100.10): coordinator, embedded relay, STUN;
#                                 makes user "mesh" and a reusable key in $W/key
#   start_relay                   kernscale-relay by itself on pub, port 8443; the map with it, region 902 "our",
#                                 in $W/derp.yaml for `coordinator_config false "$W/derp.yaml"`
#   relay_map ID CODE NAME STUN [CERTNAME]  such a map of any relay on pub, port 8443
#   run_relay ARGUMENT...         that relay with other arguments, without waiting
#   start_node NAME [ARGUMENT...] kernscaled in the namespace NAME, below the command $NODE_UNDER if any
#   launch_node NAME [ARGUMENT...]  the same without waiting for it; node_folders NAME comes before
#   listens NAME                  it can be asked
#   node_command NAME             sets NODE_COMMAND: what it is started with
#   manage NAME [OPTION...]       the same, under a stand-in for systemd (standin.c) whose folder is
#                                 $W/NAME/manager; its process is what `stop NAME` ends. Below $NODE_UNDER,
#                                 too; `old_kernel manage …`: on a kernel that refuses NFT_TABLE_F_PERSIST
#   pid_of NAME                   of the kernscaled there
#   wgctl NAME ARGUMENT...        wgctl there; admin ARGUMENT... speaks to the coordinator
#   wgctl_within SECONDS NAME ARGUMENT...  wgctl there, ended with status 124 when they are over
#   up NAME [ARGUMENT...]         wgctl up with server, key and name
#   up_with FILE NAME [ARGUMENT...]  the same with the key in $W/FILE, 20 s at most
#   join NAME...                  start_node and up, one after the other
#   ip4 NAME, ip6 NAME            its address in the mesh
#   direct A B, relayed A B       how A reaches B, as `wgctl status` says; for wait_until
#   both_direct SECONDS A B       waits until A and B reach each other directly
#   connected NAME                `wgctl status` does not say that its coordinator is out of reach
#   map_kept NAME                 nor that its map cannot be kept; in_map NAME PEER: the one it has kept has PEER
#   map_settled NAME PEER…        waits until what came lately is in the map it has kept, and at which relay each PEER is
#   reach A B                     one ICMP echo through the tunnel
#   tcp A B [SECONDS]             a TCP stream from A to B; its figures are printed, $BYTES and $MBITS set
#   grown_less KIB NAME BEFORE    its memory (RssAnon) has grown by less than that since it was BEFORE, or the scenario fails
#   key_of NAME                   the public key of its interface
#   link_is_up NAME, table_stands NAME, rules NAME NUMBER  of the node, in its kernel; rules by IPv4 and by IPv6 each
#   stands_as NAME INTERFACE TABLE BASE  its objects are in the kernel under these names, and under no others
#   has_address NAME ADDR         its interface has that IPv4 address
#   delete_rules NAME             takes all of its rules away
#   mesh_of NAME                  all that is the node's in its kernel, but what the network decides (endpoints)
#   same_mesh NAME                that is what is in $W/mesh; otherwise see $W/now
#   expect CODE COMMAND...        run it: exit status CODE or the scenario fails; output in $SAID
#   said TEXT                     $SAID contains TEXT
URL=https://198.51.100.10
CERT_NAME=IP:198.51.100.10
NODE_USER=4711:4711
SAID='' BYTES=0 MBITS=0
NODE_COMMAND=()

# A certificate for the servers on pub, and the authority nodes are told to trust, in one file.
make_cert() {
	[ ! -e "$W/tls.pem" ] || return 0
	need openssl
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
		-subj "/CN=${CERT_NAME#*:}" -addext "subjectAltName=$CERT_NAME" \
		-keyout "$W/tls.key" -out "$W/tls.pem" 2>/dev/null || fail "openssl makes no certificate"
	chmod 644 "$W/tls.pem"
	chown "$NODE_USER" "$W/tls.key"
}

# coordinator_config EMBEDDED PATHS: whether the relay is the embedded one, and files of others
coordinator_config() {
	mkdir -p "$W/coord"
	cat >"$W/coord/config.yaml" <<-EOF
		server_url: $URL
		listen_addr: 0.0.0.0:443
		tls_cert_path: $W/tls.pem
		tls_key_path: $W/tls.key
		noise:
		  private_key_path: $W/coord/noise.key
		prefixes:
		  v4: 100.64.0.0/10
		  v6: fd7a:115c:a1e0::/48
		  allocation: sequential
		derp:
		  server:
		    enabled: $1
		    region_id: 900
		    region_code: tst
		    region_name: Test
		    stun_listen_addr: 0.0.0.0:3478
		    private_key_path: $W/coord/derp.key
		    automatically_add_embedded_derp_region: true
		    ipv4: 198.51.100.10
		  urls: []
		  paths: [$2]
		  auto_update_enabled: false
		database:
		  type: sqlite
		  sqlite:
		    path: $W/coord/db.sqlite
		unix_socket: $W/coord/admin.sock
		disable_check_updates: true
		dns:
		  magic_dns: true
		  base_domain: mesh.test
		  override_local_dns: false
		  nameservers:
		    global: []
	EOF
}

start_coordinator() {
	need_programs kernscale-coordinator wgctl
	make_cert
	[ -e "$W/coord/config.yaml" ] || coordinator_config true ""
	run_coordinator
	check admin users create mesh >/dev/null
	make_key key --reusable --expiration 1h
}

run_coordinator() {
	chown -R "$NODE_USER" "$W/coord"
	chmod 755 "$W/coord"
	start coordinator pub "$BIN/kernscale-coordinator" --config "$W/coord/config.yaml" --user "$NODE_USER"
	wait_until 10 admin health || fail "the coordinator does not come up: $(tail -n 5 "$LOGS/coordinator.log")"
}

relay_map() {
	cat >"$W/derp.yaml" <<-EOF
		regions:
		  $1:
		    regionid: $1
		    regioncode: $2
		    regionname: $3
		    nodes:
		      - {name: $1a, regionid: $1, hostname: 198.51.100.10, ipv4: 198.51.100.10, certname: "${5:-}", stunport: $4, derpport: 8443}
	EOF
	chmod 644 "$W/derp.yaml"
}

run_relay() {
	need_programs kernscale-relay
	mkdir -p "$W/relay"
	chown "$NODE_USER" "$W/relay"
	start relay pub "$BIN/kernscale-relay" --listen 198.51.100.10:8443 --state "$W/relay" --user "$NODE_USER" "$@"
}

start_relay() {
	make_cert
	run_relay --stun 198.51.100.10:3478 --cert "$W/tls.pem" --key "$W/tls.key"
	wait_until 10 on pub sh -c 'ss -Hltn sport 8443 | grep -q .' || fail "the relay does not come up"
	relay_map 902 our Ours 3478
}

admin() {
	"$BIN/wgctl" admin --admin-socket "$W/coord/admin.sock" "$@"
}

# make_key FILE ARGUMENT...: a pre-auth key into $W/FILE
make_key() {
	local file=$1

	shift
	check admin preauthkeys create --user 1 "$@" >"$W/$file.said"
	tail -n 1 "$W/$file.said" >"$W/$file"
}

node_folders() {
	mkdir -p "$W/$1/state" "$W/$1/run"
	chown -R "$NODE_USER" "$W/$1"
	chmod 755 "$W/$1" "$W/$1/run"
}

node_command() {
	NODE_COMMAND=("$BIN/kernscaled" --statedir "$W/$1/state" --runtimedir "$W/$1/run"
		--socket "$W/$1/run/kernscaled.sock" --interface kernscale0 --port 41641 --table kernscale
		--user "$NODE_USER" --ca-file "$W/tls.pem")
}

launch_node() {
	need_programs kernscaled wgctl
	node_command "$1"
	# shellcheck disable=SC2086 # words
	start "$1" "$1" ${NODE_UNDER:-} "${NODE_COMMAND[@]}" --verbose debug "${@:2}"
}

# The socket of one that was killed is still there, and one that is there may not be listened to yet.
listens() {
	on "$1" grep -q " 00010000 .* $W/$1/run/kernscaled.sock\$" /proc/net/unix
}

start_node() {
	node_folders "$1"
	launch_node "$@"
	wait_until 10 listens "$1" || fail "kernscaled of $1 does not come up: $(tail -n 5 "$LOGS/$1.log")"
}

manage() {
	local n=$1

	shift
	mkdir -p "$W/$n/manager"
	NODE_UNDER="${NODE_UNDER:-} $BIN/tests/scenario/standin --stop-post --hold-filter $* $W/$n/manager" start_node "$n"
	wait_until 30 test -e "$W/$n/manager/ready" || fail "kernscaled of $n is not ready"
}

old_kernel() {
	NODE_UNDER="$(preload killer NO_PERSIST=1) ${NODE_UNDER:-}" "$@"
}

pid_of() {
	cat "$W/$1/manager/pid"
}

wgctl() {
	local n=$1

	shift
	on "$n" "$BIN/wgctl" --socket "$W/$n/run/kernscaled.sock" "$@"
}

wgctl_within() {
	timeout "$1" ip netns exec "$P$2" "$BIN/wgctl" --socket "$W/$2/run/kernscaled.sock" "${@:3}"
}

up() {
	local n=$1

	shift
	wgctl "$n" up --login-server="$URL" --auth-key="file:$W/key" --hostname="$n" --timeout=30s "$@"
}

up_with() {
	wgctl "$2" up --login-server="$URL" --auth-key="file:$W/$1" --hostname="$2" --timeout=20s "${@:3}"
}

join() {
	local n

	for n in "$@"; do
		start_node "$n"
		check up "$n"
	done
}

ip4() {
	wgctl "$1" ip -4
}

ip6() {
	wgctl "$1" ip -6
}

direct() {
	wgctl "$1" status | grep -E "^[0-9.]+ +$2 .* direct "
}

relayed() {
	wgctl "$1" status | grep -E "^[0-9.]+ +$2 .* relay "
}

both_direct() {
	wait_until "$1" direct "$2" "$3" || fail "line ${BASH_LINENO[0]}: $2 has no direct path to $3: $(wgctl "$2" status)"
	wait_until "$1" direct "$3" "$2" || fail "line ${BASH_LINENO[0]}: $3 has no direct path to $2: $(wgctl "$3" status)"
}

# It says so itself: a daemon that is dead says nothing.
connected() {
	wgctl "$1" status --json --peers=false | grep -q '"ControlConnected": true'
}

map_kept() {
	! wgctl "$1" status | grep -q 'cannot be kept'
}

in_map() {
	grep -q "\"Hostname\":\"$2\"" "$W/$1/state/netmap.json"
}

home_in_map() {
	grep -q "\"HomeDERP\":[1-9][^{]*\"Hostinfo\":{[^{}]*\"Hostname\":\"$2\"" "$W/$1/state/netmap.json"
}

# It is written 2 s after a change, and later on a slow disk.
map_settled() {
	local peer

	sleep 2.5
	for peer in "${@:2}"; do
		wait_until 20 home_in_map "$1" "$peer" || fail "line ${BASH_LINENO[0]}: $1 has not kept where $peer is"
	done
}

grown_less() {
	local now

	now=$(status_of "$2" RssAnon)
	step "$2: RssAnon $3 and then $now KiB"
	[ $((now - $3)) -lt "$1" ] || fail "line ${BASH_LINENO[0]}: memory of $2 has grown from $3 to $now KiB"
}

key_of() {
	on "$1" wg show kernscale0 public-key
}

link_is_up() {
	ip -n "$P$1" link show up dev kernscale0 | grep -q kernscale0
}

table_stands() {
	on "$1" nft list table inet kernscale | grep -q tproxy
}

rules() {
	[ "$(ip -n "$P$1" rule | grep -c '^52[0-9][0-9]:')" = "$2" ] && [ "$(ip -n "$P$1" -6 rule | grep -c '^52[0-9][0-9]:')" = "$2" ]
}

has_address() {
	ip -n "$P$1" addr show dev kernscale0 | grep -q "inet $2/32"
}

delete_rules() {
	local family priority

	for family in -4 -6; do
		for priority in $(ip -n "$P$1" $family rule | sed -n 's/^\(52[0-9][0-9]\):.*/\1/p'); do
			ip -n "$P$1" $family rule del priority "$priority" || fail "line ${BASH_LINENO[0]}: rule $priority of $1"
		done
	done
}

mesh_of() {
	local family

	on "$1" wg show kernscale0 dump | sed 's/\t/ /g' | awk 'NR == 1 { print } NR > 1 { print $1, $4, $8 }'
	ip -n "$P$1" -o addr show dev kernscale0 | sed 's/^[0-9]*: //'
	ip -n "$P$1" link show dev kernscale0 | grep -o 'mtu.*state [A-Z]*'
	for family in -4 -6; do
		ip -n "$P$1" $family route show table 52 | sort
		ip -n "$P$1" $family rule
	done
	on "$1" nft list ruleset | sed 's/ # progname.*//; /^\tflags /d'
}

same_mesh() {
	mesh_of "$1" >"$W/now" 2>/dev/null
	cmp -s "$W/now" "$W/mesh"
}

reach() {
	on "$1" ping -q -c 1 -W "${3:-1}" "$(ip4 "$2")"
}

tcp() {
	local line

	[ -n "${PIDS[sink-$2]:-}" ] || start "sink-$2" "$2" "$BIN/tests/bench/netload" sink 9000
	wait_until 5 on "$2" sh -c 'ss -Hltn sport 9000 | grep -q .' || fail "no sink on $2"
	line=$(timeout 60 ip netns exec "$P$1" "$BIN/tests/bench/netload" tcp "$(ip4 "$2")" 9000 "${3:-2}") ||
		fail "TCP $1 to $2 does not get through"
	# shellcheck disable=SC2034 # for the scenario
	read -r _ BYTES _ _ _ MBITS <<<"$line"
	echo "TCP $1 to $2: $MBITS Mbit/s"
}

expect() {
	local want=$1 r=0

	shift
	SAID=$("$@" 2>&1) || r=$?
	printf '%s\n' "\$ $*" "$SAID"
	[ "$r" = "$want" ] || fail "line ${BASH_LINENO[0]}: exit status $r, not $want: $*"
}

said() {
	grep -qiE -- "$1" <<<"$SAID" || fail "line ${BASH_LINENO[0]}: nothing of '$1' in: $SAID"
}

# nothing_left NAME: neither interface nor table nor route rule of ours in that namespace
stands_as() {
	local family

	[ "$(on "$1" wg show interfaces)" = "$2" ] && [ "$(on "$1" nft list tables)" = "table inet $3" ] &&
		[ "$(cat "$W/$1/run/kernel-objects")" = "$2 $3 $4" ] || return 1
	for family in -4 -6; do
		[ "$(ip -n "$P$1" $family rule | grep 'proto 107' | sed 's/:.*//' | tr '\n' ' ')" = \
			"$(($4 + 10)) $(($4 + 30)) $(($4 + 50)) $(($4 + 60)) $(($4 + 70)) " ] || return 1
	done
}

nothing_left() {
	! ip -n "$P$1" link show kernscale0 >/dev/null 2>&1 || fail "$1: kernscale0 is left behind"
	! on "$1" nft list tables 2>/dev/null | grep kernscale || fail "$1: the nft table is left behind"
	local family

	for family in -4 -6; do
		! ip $family -n "$P$1" rule | grep '^52[0-9][0-9]:' || fail "$1: rules are left behind"
		! ip $family -n "$P$1" route show table 52 2>/dev/null | grep . || fail "$1: routes are left behind"
	done
}

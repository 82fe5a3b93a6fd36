# shellcheck shell=bash
# words.sh: what every kind of test written in shell can say. Who sources it has set TOP, BIN, LOGS and
# an empty array PIDS (name → process).
START_MSEC=$(($(date +%s%N) / 1000000))

now_msec() {
	echo $(($(date +%s%N) / 1000000))
}

step() {
	printf '[%6d ms] %s\n' $(($(now_msec) - START_MSEC)) "$*"
}

# To stderr: of `check COMMAND >/dev/null` the sentence is still read.
fail() {
	echo "FAIL: $*" >&2
	exit 1
}

skip() {
	echo "SKIP: $*"
	exit 77
}

check() {
	"$@" || fail "line ${BASH_LINENO[0]}: $*"
}

# refute: the command must fail.
refute() {
	! "$@" || fail "line ${BASH_LINENO[0]}: should have failed: $*"
}

# WAIT_FACTOR is for a clock that runs ahead (ICOUNT=1 skips the time in which the disk is waited for).
# wait_until SECONDS COMMAND...: prints nothing, 0 once COMMAND succeeds, 1 when time is up. WAIT_STEP is
# for simulated time, in which only the tries cost any.
wait_until() {
	local end=$(($(now_msec) + $1 * 1000 * ${WAIT_FACTOR:-1}))

	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(now_msec)" -lt $end ] || return 1
		sleep "${WAIT_STEP:-0.05}"
	done
}

# in_time MSEC SINCE WHAT: WHAT has just happened, and had MSEC for it from SINCE on, which now_msec said.
in_time() {
	local took=$(($(now_msec) - $2))

	step "$3: $took ms"
	[ $took -lt $(($1 * ${WAIT_FACTOR:-1})) ] || fail "line ${BASH_LINENO[0]}: $3: $took ms"
}

# free_ports N: the first of N ports in a row that nothing on this machine uses, TCP or UDP, and that connections
# are not given by the system itself: one of those can be taken at any time.
free_ports() {
	local low used port i

	read -r low _ </proc/sys/net/ipv4/ip_local_port_range
	[ "$low" -gt 14000 ] || low=32768
	used=$(awk 'FNR > 1 { print substr($2, length($2) - 3) }' /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 2>/dev/null)
	port=$((low - 12000 + $$ * 16 % 11000))
	for ((i = 0; i < $1; i++)); do
		case $used in *"$(printf %04X $((port + i)))"*) port=$((port + i + 1)) i=-1 ;; esac
		[ $((port + $1)) -lt "$low" ] || return 1
	done
	echo $port
}

need() {
	local p

	for p in "$@"; do
		command -v "$p" >/dev/null || skip "$p is not installed"
	done
}

need_programs() {
	local p

	for p in "$@"; do
		[ -x "$BIN/$p" ] || skip "$p is not built in ${BIN#"$TOP"/}"
	done
}

# stop NAME [SIGNAL]: and wait until it is gone; its exit status is handed on.
stop() {
	local pid=${PIDS[$1]} r=0

	unset "PIDS[$1]"
	kill "-${2:-TERM}" "$pid" 2>/dev/null
	{ wait "$pid" || r=$?; } 2>/dev/null
	return $r
}

running() {
	kill -0 "${PIDS[$1]}" 2>/dev/null
}

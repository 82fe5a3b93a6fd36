# shellcheck shell=bash
# words.sh: what every kind of test written in shell can say. Who sources it has set TOP, BIN, LOGS, W and
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

# not COMMAND…: for wait_until
not() {
	! "$@"
}

# at_most NUMBER COMMAND…, at_least NUMBER COMMAND…: what it prints is a number, and such a one; for wait_until
at_most() {
	[ "$("${@:2}")" -le "$1" ]
}

at_least() {
	[ "$("${@:2}")" -ge "$1" ]
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

# in_time MSEC SINCE WHAT: WHAT has just happened, and had MSEC for it from SINCE on, which now_msec said. SLOWNESS is how
# many times longer a machine takes for everything (tests/scenario/all).
in_time() {
	local took=$(($(now_msec) - $2))

	step "$3: $took ms"
	[ $took -lt $(($1 * ${WAIT_FACTOR:-1} * ${SLOWNESS:-1})) ] || fail "line ${BASH_LINENO[0]}: $3: $took ms"
}

# middle NUMBER…: of several trials: one slow one proves nothing, this machine has other work
middle() {
	printf '%s\n' "$@" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
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

# await NAME: until it has ended by itself; its exit status is handed on.
await() {
	local r=0

	wait "${PIDS[$1]}" || r=$?
	unset "PIDS[$1]"
	return $r
}

# ends_well NAME: the same, and it must have ended with 0.
ends_well() {
	await "$1" || fail "line ${BASH_LINENO[0]}: $1 ended with $?: $(tail -n 5 "$LOGS/$1.log")"
}

# Of the process that was started as NAME:
# status_of NAME FIELD: a number of /proc/PID/status, such as RssAnon in KiB
status_of() {
	sed -n "s/^$2:[^0-9]*\([0-9]*\).*/\1/p" "/proc/${PIDS[$1]}/status"
}

# descriptors NAME: how many it has open
descriptors() {
	find "/proc/${PIDS[$1]}/fd" -type l | wc -l
}

# cpu_msec NAME: how much CPU it has used
cpu_msec() {
	awk '{ sub(/.*\) /, ""); print ($12 + $13) * 10 }' "/proc/${PIDS[$1]}/stat"
}

# put FILE WORD…: $W/FILE says that from now on, whole at every moment, for whoever reads it
put() {
	echo "${*:2}" >"$W/$1.new" && chmod 644 "$W/$1.new" && mv "$W/$1.new" "$W/$1"
}

# preload LIBRARY[:LIBRARY] VARIABLE=VALUE…: prints the command below which tests/scenario/LIBRARY.so is at work (see there)
preload() {
	echo "env LD_PRELOAD=$BIN/tests/scenario/${1//:/.so:$BIN/tests/scenario/}.so ${*:2}"
}

# lies WORD…: what liar.so does from now on; each lie is noted in $W/told. The first `lies` comes before `liar`.
lies() {
	[ -e "$W/told" ] || install -m 666 /dev/null "$W/told"
	put lies "$@"
}

# liar FOLDER: prints the command below which a program is lied to, also about files in FOLDER
liar() {
	preload liar "LIES=$W/lies" "LIES_TOLD=$W/told" "LIES_BELOW=$1"
}

# nodes_are NUMBER: so many does the coordinator know.
nodes_are() {
	[ "$(admin nodes list -o json | grep -c '"nodeKey"')" = "$1" ] ||
		fail "line ${BASH_LINENO[0]}: not $1 nodes: $(admin nodes list)"
}

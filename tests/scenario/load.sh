# shellcheck shell=bash
# load.sh: a load in phases whose every packet is counted, for stories in which none may be lost.
# Comes after lib.sh.
#
#   load A B RATE BACK SIZE   numbered UDP packets from A to B, RATE a second, and BACK a second the other
#                             way (0: none), each of SIZE bytes
#   drip A B                  a TCP stream of 100 writes of 1,000 bytes a second
#   phase NAME                what is sent from now on belongs to this phase; the first one is "start"
#   load_end                  ends all loads and prints what each phase sent and got; $LOST is what did not
#                             arrive, those of "start" apart, $TWICE and $LATE what came twice or out of
#                             order; writes the same as lines to $OUT/$SCENARIO_NAME.figures
#   no_loss                   load_end, and nothing may be lost
#   lost_of A B [PHASE]       after load_end: how many from A to B were lost, in that phase or in all but "start"
LOADS=() DRIPS=() PHASES=(start)
: >"$OUT/$SCENARIO_NAME.figures"
LOAD_PORT=9100
LOST=0 TWICE=0 LATE=0
declare -A LOST_OF=()

load() {
	local a=$1 b=$2 port=$((LOAD_PORT++)) size=$5

	# The receiver first: what it misses at the start belongs to the phase that does not count.
	start "load-$b-$a-$port" "$b" "$BIN/tests/bench/netload" stream $port "$(ip4 "$a")" $port "$4" "$size"
	start "load-$a-$b-$port" "$a" "$BIN/tests/bench/netload" stream $port "$(ip4 "$b")" $port "$3" "$size"
	LOADS+=("$a $b $port")
}

drip() {
	start "sink-$1-$2" "$2" "$BIN/tests/bench/netload" sink 9001
	wait_until 5 on "$2" sh -c 'ss -Hltn sport 9001 | grep -q .' || fail "no sink on $2"
	start "drip-$1-$2" "$1" "$BIN/tests/bench/netload" drip "$(ip4 "$2")" 9001 100 1000
	DRIPS+=("$1 $2")
}

# load_ready NAME: that end of a load is so far that SIGUSR1 does not end it, and has heard of the phase before
load_ready() {
	# shellcheck disable=SC2153 # PIDS is lib.sh's
	awk '/^Name:/ { is = $2 == "netload" } /^ShdPnd:/ { waits = /[2367abef]..$/ } /^SigCgt:/ { hears = /[2367abef]..$/ }
		END { exit !(is && hears && !waits) }' "/proc/${PIDS[$1]}/status"
}

phase() {
	local a b port n

	PHASES+=("$*")
	for l in "${LOADS[@]}"; do
		read -r a b port <<<"$l"
		for n in "load-$a-$b-$port" "load-$b-$a-$port"; do wait_until 10 load_ready "$n" || fail "a load has ended"; done
	done
	for l in "${LOADS[@]}"; do
		read -r a b port <<<"$l"
		# shellcheck disable=SC2153 # PIDS is lib.sh's
		kill -USR1 "${PIDS[load-$a-$b-$port]}" "${PIDS[load-$b-$a-$port]}" || fail "a load has ended"
	done
	step "phase: $*"
}

# load_line FROM TO PORT: compares what one end sent with what the other got
load_line() {
	local from=$1 to=$2 i n sent refused got twice late gap lost

	for i in "${!PHASES[@]}"; do
		read -r sent refused < <(sed -n "s/^sent $i \([0-9]*\) refused /\1 /p" "$LOGS/load-$from-$to-$3.log")
		[ -n "${sent:-}" ] || continue
		read -r got twice late gap < <(sed -n "s/^got $i \([0-9]*\) twice \([0-9]*\) late \([0-9]*\) gap-msec /\1 \2 \3 /p" "$LOGS/load-$to-$from-$3.log")
		lost=$((sent - ${got:-0}))
		printf '%-9s %-9s %-40s sent %8d lost %6d (refused %d) twice %d late %d longest gap %d ms\n' \
			"$from" "$to" "${PHASES[$i]}" "$sent" $lost "$refused" "${twice:-0}" "${late:-0}" "${gap:-0}" |
			tee -a "$OUT/$SCENARIO_NAME.figures"
		[ "$i" != 0 ] || continue
		for n in "$from $to" "$from $to ${PHASES[$i]}"; do LOST_OF[$n]=$((${LOST_OF[$n]:-0} + lost)); done
		LOST=$((LOST + lost)) TWICE=$((TWICE + ${twice:-0})) LATE=$((LATE + ${late:-0}))
	done
}

load_end() {
	local a b port pids=() names=() n

	for l in "${LOADS[@]}"; do
		read -r a b port <<<"$l"
		names+=("load-$a-$b-$port" "load-$b-$a-$port")
	done
	for l in "${DRIPS[@]}"; do names+=("drip-${l% *}-${l#* }"); done
	for n in "${names[@]}"; do pids+=("${PIDS[$n]}"); done
	kill "${pids[@]}" || fail "a load has ended"
	for n in "${names[@]}"; do
		ends_well "$n"
	done
	LOST=0 TWICE=0 LATE=0 LOST_OF=()
	for l in "${LOADS[@]}"; do
		read -r a b port <<<"$l"
		load_line "$a" "$b" "$port"
		load_line "$b" "$a" "$port"
	done
	for l in "${DRIPS[@]}"; do
		printf '%-9s %-9s TCP: %s\n' "${l% *}" "${l#* }" "$(cat "$LOGS/drip-${l% *}-${l#* }.log")" |
			tee -a "$OUT/$SCENARIO_NAME.figures"
	done
	LOADS=() DRIPS=() PHASES=(start)
}

no_loss() {
	load_end
	[ $LOST = 0 ] || fail "$LOST packets were lost"
}

lost_of() {
	local n=${LOST_OF[$*]:-}

	[ -n "$n" ] || fail "line ${BASH_LINENO[0]}: no such load or phase: $*"
	echo "$n"
}

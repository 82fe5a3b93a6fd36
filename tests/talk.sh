# shellcheck shell=bash
# talk.sh: words for nodes without a tunnel (tests/interop/ctlcat), which are told things and heard. Comes after
# words.sh; makes $W/NAME and $W/NAME.in.
#
#   talking NAME ARGUMENT…   makes node NAME's folder and ears; sets TALKING, the command that is to be started as NAME
#   tell NAME COMMAND…       says something to it
#   mark NAME                what it has printed so far counts no more, as when it is told something
#   has NAME PATTERN         it has printed such a line since
#   hears NAME PATTERN       waits for one, 20 s at most
declare -A SEEN=()
TALKING=()

talking() {
	local n=$1

	shift
	mkdir -p "$W/$n"
	[ -p "$W/$n.in" ] || mkfifo "$W/$n.in"
	: >>"$LOGS/$n.log"
	mark "$n"
	# shellcheck disable=SC2016,SC2034 # words of that shell; for who starts it
	TALKING=(bash -c 'exec "$@" <>"$0"' "$W/$n.in" "$BIN/tests/interop/ctlcat" --dir "$W/$n" --hostname "$n" "$@")
}

mark() {
	SEEN[$1]=$(($(wc -l <"$LOGS/$1.log") + 1))
}

tell() {
	mark "$1"
	echo "${*:2}" >"$W/$1.in"
}

has() {
	tail -n "+${SEEN[$1]}" "$LOGS/$1.log" | grep -qE "$2"
}

hears() {
	wait_until 20 has "$1" "$2" || fail "line ${BASH_LINENO[0]}: $1 does not hear '$2': $(tail -n 5 "$LOGS/$1.log")"
}

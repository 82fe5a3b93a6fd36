#!/bin/bash
# limit: 120 s
# A million datagrams each of noise, of strangers, of forgers and of pings that are played again, 50,000 in a second, at
# a node that knows a thousand peers: a quarter of one processor at most, that is 5 us for each, and memory stays flat.
# Of forged boxes a second opens 20,000 at most, which is what bounds their cost on a processor of any speed; the
# kernel's part of receiving is not in it.
. "$(dirname "$0")/lib.sh"
need_programs tests/native/pathload

for kind in random strange forged replayed spread; do
	for _ in 1 2 3; do # they cost too much only if they do three times: this machine has other work
		check "$BIN/tests/native/pathload" $kind >"$LOGS/$kind"
		read -r _ n _ nsec _ _ kib _ _ _ sent _ <"$LOGS/$kind"
		step "$(cat "$LOGS/$kind")"
		[ "$nsec" -gt 5000 ] || break
	done
	[ "$n" = 1000000 ] || fail "$kind: only $n"
	[ "$nsec" -le 5000 ] || fail "$kind: $nsec ns of CPU for each"
	[ "$kib" -lt 4096 ] || fail "$kind: $kib KiB more memory"
	case $kind in
	replayed | spread) [ "$sent" -gt 1000 ] || fail "$kind: not answered: are they good?" ;;
	*) [ "$sent" = 0 ] || fail "$kind: $sent answers" ;;
	esac
done

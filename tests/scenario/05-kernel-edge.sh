#!/bin/bash
# limit: 400 s
# The modules that talk to the kernel, each by a test program of its own (tests/kernel), each in a
# network namespace that it makes: device, links, port sharing, relay shuttle, packet filter, rights.
. "$(dirname "$0")/lib.sh"
need wg nft ip

ran=0
for p in "$BIN"/tests/kernel/test_*; do
	case $p in *.o | *.d) continue ;; esac
	[ -x "$p" ] || continue
	step "${p##*/}"
	"$p" || { [ $? = 77 ] && continue; fail "${p##*/}"; }
	ran=$((ran + 1))
done
# As on kernels before 6.9.
p=$BIN/tests/kernel/test_nft
if [ -x "$p" ]; then
	step "${p##*/}, tables that go with their owner"
	LD_PRELOAD=$BIN/tests/scenario/killer.so NO_PERSIST=1 "$p" || fail "${p##*/}, tables that go with their owner"
fi
[ $ran -gt 0 ] || skip "no test programs in $BIN/tests/kernel"
step "$ran programs"

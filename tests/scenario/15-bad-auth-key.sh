#!/bin/bash
# A wrong key is refused in words, at once, with exit status 6; nothing is left of the attempt, and
# a good key then works. On a node that has joined, a wrong key changes nothing.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
. "$(dirname "$0")/lib.sh"
hosts alice
start_coordinator
start_node alice

echo 0123456789abcdef0123456789abcdef0123456789abcdef >"$W/bad"
expect 6 up_with bad alice
said 'key'
nothing_left alice
expect 1 up_with none alice
said "$W/none"

expect 0 up alice
expect 0 ip4 alice
said '^100\.64\.0\.1$'
# Joined already: the key is not needed, so it is not judged.
expect 0 up_with bad alice
expect 0 wgctl alice status

# A key in the arguments works, is warned of, and is no more to be seen in the process list.
expect 0 wgctl alice logout
expect 0 wgctl alice up --login-server=$URL --auth-key="$(cat "$W/key")" --hostname=alice --timeout=20s
said 'file:'

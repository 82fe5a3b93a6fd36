#!/bin/bash
# An expired key, a used one-off key, a revoked one and a deleted one are each refused with a reason, nothing is left.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need jq
hosts alice bob
start_coordinator
start_node alice
start_node bob

make_key short --expiration 1s
sleep 2
expect 6 up_with short alice
said 'expired'
nothing_left alice

# Each has admitted a node before, so it was good.
for how in expire delete; do
	make_key "$how" --reusable --expiration 1h
	id=$(admin preauthkeys list -o json | jq -r 'map(.id | tonumber) | max')
	expect 0 up_with "$how" bob
	expect 0 wgctl bob logout
	expect 0 admin preauthkeys "$how" -i "$id"
	expect 6 up_with "$how" alice
	case $how in
	expire) said 'authkey expired' ;;
	delete) said 'invalid pre auth key' ;;
	esac
	nothing_left alice
done

make_key once --expiration 1h
expect 0 up_with once bob
expect 6 up_with once alice
said 'used'
nothing_left alice

# The key's end is not the node's end.
expect 0 wgctl bob status
expect 0 up alice
wait_until 10 reach alice bob || fail "alice does not reach bob"

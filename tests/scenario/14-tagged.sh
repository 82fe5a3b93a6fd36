#!/bin/bash
# A node joins with a key that has tags: it belongs to them and to nobody, says so itself, and its peer and the coordinator
# do; other tags given by the administrator reach both at once.
#
#   pub 198.51.100.10 (coordinator, relay) - inet - alice 198.51.100.11 (tag:db, tag:web)
#                                                 - bob   198.51.100.12
. "$(dirname "$0")/lib.sh"
need jq
hosts alice bob
start_coordinator
start_node alice
make_key tagged --tags tag:db,tag:web
expect 0 up_with tagged alice
join bob

# tags NODE FILTER TAGS: what NODE says of whom FILTER names
tags() {
	[ "$(wgctl "$1" status --json | jq -c "$2.Tags")" = "$3" ]
}
check wait_until 10 tags alice .Self '["tag:db","tag:web"]'
check wait_until 10 tags bob '(.Peer[] | select(.HostName == "alice"))' '["tag:db","tag:web"]'
check tags bob .Self null
expect 0 wgctl bob status
said '^100\.64\.0\.1 +alice +tagged-devices'
expect 0 wgctl bob status --detail
said 'Tags: +tag:db, tag:web'
expect 0 admin nodes list
said 'alice .*tagged-devices .*tag:db, tag:web'
[ "$(admin nodes list -o json | jq -c 'map(.tags)')" = '[["tag:db","tag:web"],[]]' ] || fail "$(admin nodes list -o json)"
wait_until 10 reach alice bob || fail "alice does not reach bob"
wait_until 10 reach bob alice || fail "bob does not reach alice"

step "another tag"
expect 0 admin nodes tag -i alice -t tag:mail
check wait_until 10 tags alice .Self '["tag:mail"]'
check wait_until 10 tags bob '(.Peer[] | select(.HostName == "alice"))' '["tag:mail"]'
check reach alice bob 4

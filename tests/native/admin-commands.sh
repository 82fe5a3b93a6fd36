#!/bin/bash
# limit: 60 s
# The whole of `wgctl admin` against a running coordinator: users, pre-auth keys and nodes are made, listed, renamed, tagged,
# expired and removed, each with its sentence and with -o json, and what cannot be done is refused by one line
# with what to do, and its exit status. Then two nodes get addresses at random from their prefix.
. "$(dirname "$0")/lib.sh"
need jq
coordinator_config ""
start_coordinator

# does CODE ARGUMENT…: wgctl admin ends so; a failure is one line on stderr alone, success says nothing there
does() {
	local want=$1 r=0

	shift
	admin "$@" >"$W/out" 2>"$W/err" </dev/null || r=$?
	echo "\$ wgctl admin $*"
	cat "$W/out" "$W/err"
	[ $r = "$want" ] || fail "line ${BASH_LINENO[0]}: exit status $r, not $want: $*"
	if [ "$want" = 0 ]; then
		[ ! -s "$W/err" ] || fail "line ${BASH_LINENO[0]}: it complains: $*"
	elif [ "$(wc -l <"$W/err")" != 1 ] || [ -s "$W/out" ]; then
		fail "line ${BASH_LINENO[0]}: not one line on stderr alone: $*"
	fi
}
says() {
	grep -qF -- "$1" "$W/out" "$W/err" || fail "line ${BASH_LINENO[0]}: it does not say '$1'"
}
json() {
	jq -e "$1" "$W/out" >/dev/null || fail "line ${BASH_LINENO[0]}: not so: $1"
}

step "users"
does 0 users create ana
says 'User created'
does 0 users create ben --display-name 'Ben B' --email ben@example.org -o json
json '.name == "ben" and .displayName == "Ben B" and .email == "ben@example.org" and .id == "2"'
does 1 users create ana
says 'a user named ana exists already: take another name'
does 1 users create 7up
says 'is not a user name: a letter first'
does 2 users create
does 0 users list
says 'ben@example.org'
does 0 users list -o json
json 'map(.name) == ["ana", "ben"]'
does 0 users list -o json-line --name ben
json 'map(.id) == ["2"]'
[ "$(wc -l <"$W/out")" = 1 ] || fail "json-line has $(wc -l <"$W/out") lines"
does 0 users rename --name ben --new-name bea
says 'User renamed'
does 0 users rename bea cleo -o json
json '.name == "cleo" and .id == "2"'
does 1 users rename --name nobody --new-name x
says 'there is no user "nobody"; see wgctl admin users list'
does 1 users rename --name cleo --new-name ana
says 'a user named ana exists already'
does 2 users rename --name cleo
says 'give --new-name'
does 2 users destroy --name cleo
says 'give --force to do it'
does 0 users destroy --name cleo --force
says 'User destroyed'
does 1 users destroy --name cleo --force
says 'there is no user "cleo"; see wgctl admin users list'
does 0 users list -o json
json 'map(.name) == ["ana"]'
does 2 users expire ana
does 2 nodes create
does 2 users list -o tables
does 1 users list -o yaml

step "pre-auth keys"
does 0 preauthkeys create --user ana --reusable --expiration 2h -o json
json '.key | test("^hskey-auth-[0-9A-Za-z_-]{12}-")'
json '.id == "1" and .reusable and (.ephemeral | not) and (.used | not) and .user.name == "ana" and .aclTags == []'
key=$(jq -r .key "$W/out")
does 0 preauthkeys create --user 1 --ephemeral --tags tag:db,tag:web -o json
json '.id == "2" and .ephemeral and (.reusable | not) and .aclTags == ["tag:db", "tag:web"]'
once=$(jq -r .key "$W/out")
does 0 preauthkeys create --tags tag:ci
grep -q '^hskey-auth-' "$W/out" || fail "the key is not printed"
does 1 preauthkeys create --user nobody
says 'there is no user "nobody"; see wgctl admin users list'
does 2 preauthkeys create
says 'give --user or --tags'
does 1 preauthkeys create --user ana --tags web
says "'web' is not a tag"
does 2 preauthkeys create --user ana --expiration soon
does 2 preauthkeys create --user ana --expiration 0
says 'has expired before anybody uses it'
does 0 preauthkeys list
says 'tag:db, tag:web'
does 0 preauthkeys list -o json
json 'map(.id) == ["1", "2", "3"]'
json 'map(.key | test("-[*]{3}$")) | all'
does 0 preauthkeys list --user ana -o json
json 'map(.id) == ["1", "2"]'

step "nodes"
join alice
key=$once join bob
node carol --auth-key "$once"
hears carol 'authkey already used'
stop carol
does 0 preauthkeys list -o json
json 'map(.used) == [true, true, false]'
does 0 nodes list
says 'tagged-devices'
says 'tag:db, tag:web'
does 0 nodes list -o json
json 'map(.givenName) == ["alice", "bob"] and map(.ipAddresses[0]) == ["100.64.0.1", "100.64.0.2"]'
json '.[0].user.name == "ana" and .[0].tags == [] and .[1].tags == ["tag:db", "tag:web"] and .[1].ephemeral and (map(.online) | all)'
does 0 nodes list --user ana -o json
json 'map(.givenName) == ["alice"]'
does 1 nodes list --user nobody
does 1 users destroy --name ana --force
says 'user ana still has 1 nodes: delete them first'
does 0 nodes rename -i alice alina
says 'Node renamed'
does 0 nodes rename -i 1 amy -o json
json '.givenName == "amy" and .name == "alice"'
does 1 nodes rename -i amy bob
says 'another node is named bob already: take another name'
does 1 nodes rename -i amy 'Not a name'
says 'is not a name: lower-case letters'
does 1 nodes rename -i nobody x
says 'there is no node "nobody"; see wgctl admin nodes list'
does 1 nodes rename -i 77 x
says 'node 77 does not exist; see wgctl admin nodes list'
does 0 nodes tag -i bob -t tag:ci -o json
json '.tags == ["tag:ci"]'
does 1 nodes tag -i bob -t ci
says "'ci' is not a tag"
does 2 nodes tag -i bob
says 'give --tags'
does 0 nodes expire -i amy -e 2100-01-31T12:00:00Z
says 'Node expiration updated'
does 0 nodes list -o json
json '.[0].expiry | startswith("2100-01-31T12:00:00")'
json '.[0].expired | not'
does 0 nodes expire -i amy -d -o json
json '.expiry == null and (.expired | not)'
does 2 nodes expire -i amy -e tomorrow
does 2 nodes expire -i amy -e 2100-01-31T12:00:00Z -d
does 0 nodes expire -i amy
says 'Node expired'
does 0 nodes list -o json
json '.[0].expired and (.[1].expired | not)'
does 1 nodes expire -i nobody
does 1 nodes register --user ana --key hskey-authreq-000000000000000000000000
says 'is waiting'
does 2 nodes register --user ana
does 2 nodes delete -i bob
says 'give --force to do it'
does 0 nodes delete -i bob --force
says 'Node deleted'
does 1 nodes delete -i bob --force
says 'there is no node "bob"; see wgctl admin nodes list'
does 0 nodes delete 1 --force -o json
does 0 nodes list -o json
json '. == []'
stop alice
stop bob

step "keys that are taken back"
does 0 preauthkeys expire -i 1
says 'Key expired'
does 0 preauthkeys list -o json
json '.[0].expiration[:19] <= (now | todate[:19])'
node dave --auth-key "$key"
hears dave 'authkey expired'
stop dave
does 0 preauthkeys delete "$key"
says 'Key deleted'
does 0 preauthkeys delete -i 2 -o json
does 1 preauthkeys delete -i 2
says 'pre-auth key 2 does not exist; see wgctl admin preauthkeys list'
does 1 preauthkeys expire hskey-auth-000000000000-x
says 'there is no such key; see wgctl admin preauthkeys list'
does 2 preauthkeys expire
says 'which key? give --identifier ID'
does 0 preauthkeys list -o json
json 'map(.id) == ["3"]'
does 0 users destroy ana --force
does 0 health
says 'healthy'

step "without a coordinator"
check stop coordinator
for c in "users list" "preauthkeys list" "nodes list" "health"; do
	# shellcheck disable=SC2086 # words
	does 3 $c
	says 'is it running? systemctl start kernscale-coordinator'
done

step "addresses at random"
sed -i 's/allocation: sequential/allocation: random/; s|v4: 100.64.0.0/10|v4: 100.72.0.0/16|' "$W/config.yaml"
start_coordinator
does 0 users create ana
does 0 preauthkeys create --user ana --reusable
key=$(tail -n 1 "$W/out")
join erin fred gwen
does 0 nodes list -o json
json 'length == 3'
json 'map(.ipAddresses[]) | unique | length == 6'
json 'map(.ipAddresses[0] | startswith("100.72.")) | all'
json 'map(.ipAddresses[1] | startswith("fd7a:115c:a1e0:")) | all'
# Three neighbours by chance: one in a thousand million.
json 'map(.ipAddresses[0] | split(".") | (.[2] | tonumber) * 256 + (.[3] | tonumber)) | sort | .[2] - .[0] > 2'

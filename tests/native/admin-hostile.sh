#!/bin/bash
# limit: 200 s
# The coordinator's admin socket, which its operator has opened to everybody (0777), among users of the machine: who may
# not ask is told so, whatever he sends; garbage, cut and huge requests of those who may get a clear error; crowds that
# say nothing, half of something, or bodies without an end, and readers that read nothing have their share and no more.
# Root's `wgctl admin` is served all the while, the nodes' streams hear of each other, and descriptors, memory and the
# list of users are afterwards what they were.
. "$(dirname "$0")/lib.sh"
need curl setpriv
need_programs kernscale-coordinator wgctl tests/interop/ctlcat tests/interop/crowd tests/native/say
[ "$(id -u)" = 0 ] || skip "only root can be several users"
OWNER=60700 # the coordinator's own user, and the group of its socket
SHARE=16 # of the 64 connections, what another user than root and OWNER has
ALL=48   # and all of them together
sock=$W/admin.sock

coordinator_config 'unix_socket_permission: "0777"'
cp "$BIN/tests/interop/crowd" "$BIN/tests/native/say" "$BIN/wgctl" "$W/"
chmod 755 "$W/crowd" "$W/say" "$W/wgctl"
chown -R $OWNER:$OWNER "$W"
chmod 755 "$W"
start coordinator "$BIN/kernscale-coordinator" --config "$W/config.yaml" --user $OWNER:$OWNER
coordinator_up
[ "$(stat -c %a "$sock")" = 777 ] || fail "the socket is not open to everybody"
mesh_key
alice_and_bob

files() {
	descriptors coordinator
}

kib() {
	status_of coordinator RssAnon
}

# as UID GID COMMAND…
as() {
	setpriv --reuid "$1" --regid "$2" --clear-groups "${@:3}"
}

goes_on
admin users list -o json >"$W/users"
before=$(kib) fds=$(files) lines=$(wc -l <"$LOGS/coordinator.log") states=$(cat "$LOGS/alice.log" "$LOGS/bob.log" | grep -c STATE)

step "cut requests, and nobody there to end them"
cut() {
	# shellcheck disable=SC2016 # words of that shell
	start "cut-$1" bash -c 'printf "$2" | "$0" "$1"' "$W/say" "$sock" "$2"
}
cut head 'GET /api/v1/no'
cut body 'POST /api/v1/user HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{"name":'
cut chunk 'POST /api/v1/user HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{"name":'
cut silent ''
cut_at=$(now_msec)

step "whoever may not ask"
stranger() { as 65534 65534 curl -s -m 10 -w '\n%{http_code} %{size_upload}' --unix-socket "$sock" "$@" 2>&1; }
may() { as 65534 $OWNER curl -s -m 10 -o /dev/null -w '%{http_code}' --unix-socket "$sock" "$@"; }
head -c 1000000 /dev/zero | tr '\0' '[' >"$W/deep"
chmod 644 "$W/deep"
refused() {
	local said

	said=$(stranger "$@")
	grep -q '"detail": "only root,.* 403' <<<"${said//$'\n'/ }" || fail "nobody asks $* and is told: $said"
}
refused http://x/api/v1/health
refused http://x/api/v1/node
refused http://x/nothing
refused -X DELETE http://x/api/v1/node/1
refused -d '{"user":"1"}' http://x/api/v1/preauthkey
refused -d '{"name":"evil"}' http://x/api/v1/user
refused -H Expect: --data-binary "@$W/deep" http://x/api/v1/user
expect_refused() {
	local r=0

	said=$(as 65534 65534 "$W/wgctl" admin --admin-socket "$sock" users create evil 2>&1) || r=$?
	[ $r != 0 ] && grep -q "only root" <<<"$said"
}
check expect_refused
[ "$(may http://x/api/v1/health)" = 200 ] || fail "the group of the socket may not ask"
[ "$(setpriv --reuid 65534 --regid 65534 --groups $OWNER curl -s -o /dev/null -w '%{http_code}' \
	--unix-socket "$sock" http://x/api/v1/health)" = 200 ] || fail "who has the group besides may not ask"

step "what is no request, or too much of one, of somebody who may"
# answer STATUS NAME, the bytes come on stdin
answer() {
	local said

	said=$("$W/say" "$sock" | head -n 1 | tr -d '\r')
	grep -qE "^HTTP/1\.1 ($1) " <<<"$said" || fail "$2: '$said' and not $1"
}
bytes() { head -c "$1" /dev/zero | tr '\0' "$2"; }
post() { printf 'POST /api/v1/user HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n' "$1"; }
json() { post "Content-Length: ${#1}\r\n"; printf '%s' "$1"; }
printf 'GARBAGE\r\n\r\n' | answer 400 garbage
printf '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n' | answer 400 "a ClientHello"
head -c 100000 /dev/urandom | answer '400|431' noise
bytes 100000 x | answer 431 "a line without an end"
printf 'GET /api/v1/health HTTP/9.9\r\n\r\n' | answer 505 "HTTP/9.9"
{ printf 'GET /api/v1/health HTTP/1.1\r\nX: '; bytes 60000 y; printf '\r\n\r\n'; } | answer 431 "a head of 60 KB"
printf 'GET /api/v1/health HTTP/1.1\nHost: x\n\n' | answer 400 "lines without CR"
post 'Content-Length: 5\r\nContent-Length: 6\r\n' | answer 400 "two lengths"
post 'Content-Length: -1\r\n' | answer 400 "a length below nothing"
post 'Content-Length: 99999999999999999999\r\n' | answer '400|413' "a length beyond numbers"
post 'Content-Length: 1048577\r\n' | answer 413 "a body of more than 1 MiB, announced"
{ post 'Content-Length: 1048577\r\n'; bytes 1048577 x; } | answer 413 "a body of more than 1 MiB"
{ post 'Transfer-Encoding: chunked\r\n'; printf '110000\r\n'; bytes 1114112 x; } | answer 413 "chunks of more than 1 MiB"
{ post 'Transfer-Encoding: chunked\r\n'; printf 'fffffffffffffffff\r\n'; } | answer '400|413' "a chunk beyond numbers"
post 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n' | answer 400 "length and chunks"
{ post 'Content-Length: 200000\r\n'; bytes 200000 '['; } | answer 400 "200,000 levels of JSON"
{ post 'Content-Length: 1048576\r\n'; bytes 1048576 '['; } | answer 400 "1 MiB of levels"
{ post 'Content-Length: 200009\r\n'; printf '{"name":'; bytes 200000 '{'; printf '}'; } | answer 400 "levels inside of an object"
json '{"name":"evil","name":"evil2"}' | answer 400 "a name that is there twice"
json '{"name":"e\u001b[31mvil"}' | answer 400 "a name that acts on terminals"
json "{\"name\":\"$(bytes 10000 x)\"}" | answer 400 "a name of 10 KB"
json '{"name":["evil"]}' | answer 400 "a list for a name"
json '["evil"]' | answer 400 "a list for an object"
json '{"name":"evil"' | answer 400 "an object without its end"
printf 'GET /api/v1/node/%%00 HTTP/1.1\r\n\r\n' | answer '400|404' "a NUL in the path"
printf 'GET /api/v1/node/%s HTTP/1.1\r\n\r\n' 99999999999999999999999 | answer '400|404' "an id beyond numbers"
printf 'GET /api/v1/%s HTTP/1.1\r\n\r\n' "$(printf 'a/%.0s' {1..2000})" | answer 404 "a path of 2,000 parts"
printf 'GET /api/v1/user/1/rename/%s HTTP/1.1\r\n\r\n' "$(bytes 5000 y)" | answer '404' "a part of 5 KB"
printf 'BREW /api/v1/health HTTP/1.1\r\n\r\n' | answer 405 "a method that there is not"
goes_on

# crowd USERS COUNT GID MIB TEXT: root asks and writes meanwhile. MIB: what they may make it take.
crowd() {
	local i t all='' worst=0 most=0 rss=0 allowed=$((SHARE * $1))

	[ $allowed -le $ALL ] || allowed=$ALL
	for ((i = 0; i < $1; i++)); do
		start "crowd$i" setpriv --reuid $((61000 + i)) --regid "$3" --clear-groups "$W/crowd" "$sock" "$2" 100 "$5"
	done
	wait_until 20 at_least $((fds + allowed - 6)) files || fail "$(($(files) - fds)) descriptors: there is no crowd"
	for i in 1 2 3 4; do
		t=$(now_msec)
		timeout 20 "$W/wgctl" admin --admin-socket "$sock" preauthkeys create --user 1 --expiration 1h >"$W/made.$i" ||
			fail "root's request $i: exit status $?"
		t=$(($(now_msec) - t))
		all+="$t "
		[ $t -le $worst ] || worst=$t
		timeout 20 "$W/wgctl" admin --admin-socket "$sock" users list >"$W/listed" || fail "root is not told of the users"
		check grep -q mesh "$W/listed"
		[ "$(files)" -le "$most" ] || most=$(files)
		[ "$(kib)" -le "$rss" ] || rss=$(kib)
		sleep 0.3
	done
	goes_on
	for ((i = 0; i < $1; i++)); do stop "crowd$i"; done
	step "$1 users, $2 connections each: root waits ${all}ms, $((most - fds)) descriptors of $allowed, $((rss - before)) KiB more"
	[ $worst -lt 10000 ] || fail "root waited $worst ms"
	[ "$most" -le $((fds + allowed + 10)) ] || fail "$((most - fds)) descriptors for strangers, $allowed are theirs"
	[ "$most" -ge $((fds + allowed / 2)) ] || fail "$((most - fds)) descriptors: the crowd has gone"
	[ $((rss - before)) -lt $(($4 * 1024)) ] || fail "$((rss - before)) KiB more"
}

step "crowds"
big=$(bytes 30000 x)
crowd 1 200 65534 4 ''
crowd 5 100 65534 4 ''
crowd 5 100 65534 4 'GET /api/v1/node HT'
crowd 5 40 $OWNER 8 'GET /api/v1/node HTTP/1.1\r\nHost: x\r\n\r\n'
crowd 5 40 $OWNER 64 "POST /api/v1/user HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n$big"

settled() { at_most $((before + 2047)) kib; }
wait_until 15 settled || fail "the crowds have gone, and $before KiB are $(kib)"

# Those that are refused at once come and go: how many there are at a time says nothing.
churn() {
	local i peak=0

	for i in 1 2 3; do
		start "churn$i" setpriv --reuid $((61000 + i)) --regid 65534 --clear-groups "$W/crowd" "$sock" 60 60 "$1"
	done
	for ((i = 0; i < 20; i++)); do
		[ "$(kib)" -le "$peak" ] || peak=$(kib)
		sleep 0.1
	done
	check admin users list >/dev/null
	goes_on
	for i in 1 2 3; do stop "churn$i"; done
	step "refused again and again: $((peak - before)) KiB more"
	[ $((peak - before)) -lt 4096 ] || fail "who may not ask makes it take $((peak - before)) KiB"
}
churn 'GARBAGE \r\n'
churn "POST /api/v1/user HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n$big"

step "afterwards"
while [ "$(($(now_msec) - cut_at))" -lt 12000 ]; do sleep 0.2; done
for n in head body chunk; do
	await "cut-$n"
	grep -q '^HTTP/1.1 408 ' "$LOGS/cut-$n.log" || fail "the cut $n is answered: $(cat "$LOGS/cut-$n.log")"
done
await cut-silent
[ ! -s "$LOGS/cut-silent.log" ] || fail "who said nothing is answered: $(cat "$LOGS/cut-silent.log")"
as_before() { at_most $((fds + 1)) files && settled; }
wait_until 15 as_before || fail "$fds descriptors are $(files), $before KiB are $(kib)"
step "$(files) descriptors and $(kib) KiB, before $fds and $before; $(($(wc -l <"$LOGS/coordinator.log") - lines)) lines of log"
[ $(($(wc -l <"$LOGS/coordinator.log") - lines)) -lt 40 ] || fail "the crowds fill the log"
[ "$(cat "$LOGS/alice.log" "$LOGS/bob.log" | grep -c STATE)" = "$states" ] || fail "a stream broke off: $(tail -n 3 "$LOGS/alice.log")"
admin users list -o json | cmp - "$W/users" || fail "there are other users"
goes_on

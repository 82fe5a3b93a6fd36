#!/bin/bash
# What --check-config says of a configuration, before a service is (re)started with it: the coordinator's with its
# certificate, the daemon's by the line.
. "$(dirname "$0")/lib.sh"
need_programs kernscaled kernscale-coordinator
coordinator_config

# judge STATUS PATTERN RC: what $LOGS/said is, of who ended by RC
judge() {
	[ "$3" = "$1" ] || fail "line ${BASH_LINENO[1]}: status $3: $(cat "$LOGS/said")"
	grep -q "$2" "$LOGS/said" || fail "line ${BASH_LINENO[1]}: $(cat "$LOGS/said")"
}

# coordinator STATUS PATTERN
coordinator() {
	local rc=0

	"$BIN/kernscale-coordinator" --check-config --config "$W/config.yaml" >"$LOGS/said" 2>&1 || rc=$?
	judge "$1" "$2" $rc
	! ls "$W/db.sqlite" "$W/noise.key" 2>/dev/null || fail "something was made"
}
coordinator 0 'the configuration is good'
for n in one two; do
	check openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$n" \
		-keyout "$W/$n.key" -out "$W/$n.crt" 2>/dev/null
done
coordinator_config "tls_cert_path: $W/none.crt"$'\n'"tls_key_path: $W/none.key"
coordinator 1 'tls_cert_path'
sed -i 's/none.crt/one.crt/; s/none.key/two.key/' "$W/config.yaml"
coordinator 1 'tls_cert_path'
sed -i 's/two.key/one.key/' "$W/config.yaml"
coordinator 0 'the configuration is good'
sed -i 's/^prefixes:.*/prefixes: {v4: ""}/' "$W/config.yaml"
coordinator 1 'at least one of v4 and v6'
echo 'colour: [' >>"$W/config.yaml"
coordinator 1 'line '

# node STATUS PATTERN LINE…
node() {
	local rc=0

	printf '%s\n' "${@:3}" >"$W/kernscaled.yaml"
	"$BIN/kernscaled" --check-config --config "$W/kernscaled.yaml" >"$LOGS/said" 2>&1 || rc=$?
	judge "$1" "$2" $rc
}
node 0 'settings are good' 'port: 41641' "ca-file: $W/one.crt"
node 2 'colour' 'port: 41641' 'colour: red'
node 2 'port' 'port: 70000'

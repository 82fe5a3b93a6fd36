#!/bin/bash
# What a program says of itself with --help and what its manual page says are the same options: none is missing on
# either side. wgctl is asked for each of its commands, and compared with that command's entry. (Its completion scripts
# are made from the same table as its help; a unit test compares those.)
. "$(dirname "$0")/lib.sh"
need_programs kernscaled kernscale-coordinator kernscale-relay wgctl

# What a page or an entry names as flags, one a line: -c, --config
flags_of_page() {
	grep -oE '\bFl [A-Za-z0-9-]+' | sed 's/^Fl /-/' | sort -u
}

# The same of what --help prints: the lines that begin with one
flags_of_help() {
	grep -E '^ +-' | grep -oE '(^|[ ,])--?[A-Za-z][a-z-]*' | tr -d ' ,' | sort -u
}

# same NAME HELP PAGE
same() {
	diff "$2" "$3" >"$W/diff" || fail "$1: --help (<) and the manual page (>) differ: $(cat "$W/diff")"
	[ -s "$2" ] || fail "$1: no options are found"
}

for p in kernscaled kernscale-coordinator kernscale-relay; do
	"$BIN/$p" --help >"$W/said" || fail "$p --help fails"
	flags_of_help <"$W/said" >"$W/help"
	grep '^\.It Fl ' "$TOP/docs/man/$p.8" | flags_of_page >"$W/page"
	same "$p" "$W/help" "$W/page"
	sed -n '/^\.Sh SYNOPSIS/,/^\.Sh DESC/p' "$TOP/docs/man/$p.8" | flags_of_page >"$W/page"
	same "$p, synopsis" "$W/help" "$W/page"
	step "$p: $(wc -l <"$W/help") options"
done

# entry COMMAND...: what stands below its name up to the next one's, or nothing
entry() {
	awk -v name=".It Cm $*" 'found && /^\.(It Cm|El|Sh)/ { exit } $0 == name || index($0, name " ") == 1 { found = 1 } found' \
		"$TOP/docs/man/wgctl.8"
}

# part NAME: the lines of the last help below "NAME:"
part() {
	sed -n "/^$1:/,/^$/p" "$W/said" | sed '1d; /^$/d'
}

# Every flag of a command stands in its entry, by its name or its letter, and its entry names no other.
leaves=0
walk() {
	local sub subs n letter name

	"$BIN/wgctl" "$@" --help >"$W/said" || fail "wgctl $* --help fails"
	subs=$(part commands | awk '{ print $1 }')
	if [ -z "$subs" ]; then
		leaves=$((leaves + 1))
		entry "$@" >"$W/entry"
		[ -s "$W/entry" ] || fail "wgctl $*: the manual page has no entry"
		flags_of_page <"$W/entry" >"$W/page"
		while read -r letter name _; do
			case $letter in --*) name=$letter ;; esac
			letter=${letter%,}
			grep -qxe "$letter" -e "$name" "$W/page" || fail "wgctl $*: the manual page does not name $letter"
		done < <(part flags)
		head -n 1 "$W/entry" | flags_of_page | while read -r n; do
			grep -qE -- "(^|[ ,])$n( |,|=|$)" "$W/said" || fail "wgctl $*: the manual page names $n, --help does not"
		done || exit 1
	fi
	for sub in $subs; do walk "$@" "$sub"; done
}
walk
[ $leaves -gt 20 ] || fail "only $leaves commands of wgctl are found"
step "wgctl: $leaves commands"

# Flags for every command, and for every one of admin.
for c in '' admin; do
	# shellcheck disable=SC2086 # no word or one
	"$BIN/wgctl" $c --help | sed -n '/^flags:/,/^$/p'
done | flags_of_help >"$W/help"
printf '%s\n' -h --help | sort -u - "$W/help" >"$W/all"
grep '^\.It Fl ' "$TOP/docs/man/wgctl.8" | flags_of_page >"$W/page"
same wgctl "$W/all" "$W/page"

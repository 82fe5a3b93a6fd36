#!/bin/bash
# A new version is installed as dpkg does it, by renaming over the old file, and the services are restarted: no
# packet is lost. The old process works on while its file is gone.
. "$(dirname "$0")/lib.sh"

traffic
for p in /usr/sbin/kernscaled /usr/sbin/kernscale-coordinator /usr/sbin/kernscale-relay /usr/bin/wgctl; do
	cp -p $p $p.dpkg-new
	printf upgraded >>$p.dpkg-new # another file, the same program
	mv $p.dpkg-new $p
done
check wgctl vm status >/dev/null
for u in "${UNITS[@]}"; do
	case $(readlink "/proc/$(get "$u" MainPID)/exe") in
	*deleted*) ;;
	*) fail "$u should still run from the file that is gone" ;;
	esac
done
step "installed, the old ones work"
check systemctl restart "${UNITS[@]}"
step "restarted"
for u in "${UNITS[@]}"; do
	[ "$(tail -c 8 "/proc/$(get "$u" MainPID)/exe")" = upgraded ] || fail "$u is not the new one"
done
check wgctl vm wait --timeout=20s
no_loss
standing
check wgctl vm ping -c 3 --timeout=10s bob

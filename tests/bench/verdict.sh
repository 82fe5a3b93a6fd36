# shellcheck shell=bash
# verdict TEXT VALUE most|least LIMIT UNIT: says whether a target is reached, and is 1 if it is missed, which it is as well
# when nothing was measured (VALUE is empty or no number).
verdict() {
	awk -v text="$1" -v v="$2" -v rel="$3" -v limit="$4" -v unit="$5" 'BEGIN {
		measured = v ~ /^[0-9]+(\.[0-9]+)?$/
		reached = measured && (rel == "most" ? v + 0 <= limit + 0 : v + 0 >= limit + 0)
		printf "   target %s, at %s %s %s: %s: %s\n", text, rel, limit, unit,
			measured ? v " " unit : "nothing was measured", reached ? "reached" : "MISSED"
		exit !reached
	}'
}

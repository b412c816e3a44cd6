#!/bin/sh
# Runs the original Autobahn suite, with its original cases, against an echo server or an echo client.
#
#   upstream.sh server ws://host:port [report directory]    test a server
#   upstream.sh client [port]         [report directory]    listen for a client on that port (9001)
#
# It needs wstest in the PATH, or Docker and the image crossbario/autobahn-testsuite.
set -eu

usage() {
	sed -n '4,5s/^# *//p' "$0" >&2
	exit 2
}

[ $# -ge 1 ] || usage
role=$1
case $role in
server) [ $# -ge 2 ] || usage; target=$2; out=${3:-reports/servers} ;;
client) target=ws://0.0.0.0:${2:-9001}; out=${3:-reports/clients} ;;
*) usage ;;
esac

mkdir -p "$out"
out=$(cd "$out" && pwd)
spec=$(mktemp -d)
trap 'rm -rf "$spec"' EXIT INT TERM

# $1 is where the suite itself finds the report directory.
write_spec() {
	if [ "$role" = server ]; then
		cat >"$spec/spec.json" <<-JSON
		{"options": {"failByDrop": false}, "outdir": "$1",
		 "servers": [{"url": "$target", "options": {"version": 18}}],
		 "cases": ["*"], "exclude-cases": [], "exclude-agent-cases": {}}
		JSON
	else
		cat >"$spec/spec.json" <<-JSON
		{"url": "$target", "options": {"failByDrop": false}, "outdir": "$1", "webport": 0,
		 "cases": ["*"], "exclude-cases": [], "exclude-agent-cases": {}}
		JSON
	fi
}

mode=fuzzingclient
[ "$role" = server ] || mode=fuzzingserver

if command -v wstest >/dev/null 2>&1; then
	write_spec "$out"
	wstest -m $mode -s "$spec/spec.json"
elif command -v docker >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
	write_spec /reports
	docker run --rm --network host -v "$spec:/spec:ro" -v "$out:/reports" crossbario/autobahn-testsuite \
		wstest -m $mode -s /spec/spec.json
else
	echo "upstream.sh: neither wstest nor a running Docker was found." >&2
	echo "The same cases without either: go run ./autobahn/wsspec $role" >&2
	exit 3
fi

[ -f "$out/index.json" ] || { echo "upstream.sh: the suite left no reports in $out" >&2; exit 1; }
if grep -E '"behavior(Close)?": "(FAILED|UNCLEAN|WRONG CODE|FAILED BY CLIENT)"' "$out/index.json" >/dev/null; then
	echo "upstream.sh: some cases failed, see $out/index.html" >&2
	exit 1
fi
echo "upstream.sh: all cases passed, see $out/index.html"

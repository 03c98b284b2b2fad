#!/bin/sh
# soak.sh: for a time (SOAK, such as 90s, 30m, 2h; default 30m), a third of it simulated events, seed after seed, then chaos
# against real processes. SEED is the first seed (default: the clock's seconds).
cd "$(dirname "$0")/.."
. scripts/lib.sh

has go || fail "Go is missing: install Go 1.26 or newer (https://go.dev/dl)"
has "${CC:-gcc}" || fail "the race detector needs a C compiler: install one (apt-get install gcc libc6-dev)"

SOAK=${SOAK:-30m}
number=${SOAK%[smh]}
case $number in
'' | *[!0-9]*) fail "SOAK=$SOAK: say 90s, 30m or 2h" ;;
esac
case $SOAK in
*h) seconds=$((number * 3600)) ;;
*m) seconds=$((number * 60)) ;;
*) seconds=$number ;;
esac
first=${SEED:-$(date +%s)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What is run again and again is built once.
CGO_ENABLED=0 go test -c -o "$work/simulation" ./activator
CGO_ENABLED=1 go test -c -race -o "$work/chaos" ./caddymodule

seeds=64 events=50000 seed=$first batches=0
until=$(($(date +%s) + seconds / 3))
while [ "$(date +%s)" -lt "$until" ]; do
	(cd activator && GOGC=1000 "$work/simulation" -test.run 'TestSimulation$' -test.v -sim.first "$seed" -sim.seeds $seeds -sim.events $events) >"$work/log" 2>&1 || {
		cat "$work/log"
		for bad in $(sed -n 's/^ *--- FAIL: .*seed=\([0-9]*\).*/\1/p' "$work/log"); do
			say "replay: go test ./activator -run 'TestSimulation/all/seed=$bad\$' -sim.first $bad -sim.seeds 1 -sim.events $events"
		done
		exit 1
	}
	sed -n 's/^ *simulation_test.go:[0-9]*: \([0-9]* seeds\)/\1/p' "$work/log"
	seed=$((seed + seeds)) batches=$((batches + 1))
done
echo "simulation: $((batches * seeds)) seeds from $first, $((batches * seeds * events)) events, nothing broken"

left=$((seconds - seconds / 3))
(cd caddymodule && "$work/chaos" -test.run 'TestChaos$' -test.v -test.timeout $((left + 600))s -chaos.time ${left}s -chaos.seed "$first") >"$work/log" 2>&1 || {
	cat "$work/log"
	say "the same requests and faults, at other moments: go test -race ./caddymodule -run 'TestChaos\$' -v -timeout $((left + 600))s -chaos.time ${left}s -chaos.seed $first"
	exit 1
}
grep -v '^{' "$work/log"

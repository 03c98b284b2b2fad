//go:build !race

package lifecycle

import "time"

// raceSlack is what the race detector may add to a bound in real time.
const raceSlack = 500 * time.Millisecond

package enginetest

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"time"
)

// tailed draws a delay from the lognormal distribution with that mean, and sigma
// as the standard deviation of its logarithm: the larger, the longer the few long
// ones. (Lengths of answers are spread about so; with a sigma of 1.2 one in a
// hundred takes 8 times the mean.) It is drawn by the request's body: the same
// request takes equally long whichever engine answers it, and in every run.
func tailed(mean time.Duration, sigma float64, body []byte) time.Duration {
	if sigma == 0 {
		return mean
	}
	h := fnv.New64a()
	_, _ = h.Write(body) // never fails
	z := rand.New(rand.NewPCG(h.Sum64(), 0)).NormFloat64()
	return time.Duration(float64(mean) * math.Exp(sigma*z-sigma*sigma/2))
}

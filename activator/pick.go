package activator

import (
	"math"

	"assistant/lifecycle"
)

// overload bounds how much more than its share an instance gets for the sake of affinity: 1.25 times. It is 1+ε of
// "Consistent Hashing with Bounded Loads" (Mirrokni, Thorup, Zadimoghaddam, SODA 2018), where the overflow to other
// instances falls with 1/ε²; 1.25 is what HAProxy suggests to begin with (hash-balance-factor 125 to 200) and KubeAI's
// load factor.
const overload = 1.25

// pick returns the instance to take a lease on, nil if none has a free slot.
//
// Further turns of a conversation go where its beginning went, as there the engine has its prompt computed: the instances are
// ranked by a hash of the conversation and their generation (rendezvous hashing, Thaler and Ravishankar 1998: when an
// instance comes or goes only its own conversations move), and the first in rank with a free slot and
// no more than its bounded share is taken. What has no conversation goes to the least loaded. Only as many of the
// instances as the load needs take part, the oldest first, so that the others fall idle and retire.
func (m *modelState) pick(conversation uint64) *lifecycle.Instance {
	if len(m.instances) == 1 {
		if in := m.instances[0]; in.Free() {
			return in
		}
		return nil
	}
	return m.pickOf(m.needed(), conversation)
}

// needed is how many of the ready instances the present load fills half: slots share an engine's speed, so a second engine
// pays before the first is full. At least one of them has a free slot, unless all are full.
func (m *modelState) needed() int {
	need, room, free, unlimited := 0, 0, false, false
	for _, in := range m.instances {
		if in.State != lifecycle.Ready {
			continue
		}
		if free && !unlimited && (m.leases+1)*2 <= room {
			break
		}
		need++
		room += in.Slots
		free = free || in.Free()
		unlimited = unlimited || in.Slots == 0
	}
	return need
}

func (m *modelState) pickOf(need int, conversation uint64) *lifecycle.Instance {
	share := int(math.Ceil(overload * float64(m.leases+1) / float64(max(need, 1))))
	var best, spare *lifecycle.Instance
	var rank uint64
	for _, in := range m.instances {
		if in.State != lifecycle.Ready {
			continue
		}
		if need--; need < 0 {
			break
		}
		if !in.Free() {
			continue
		}
		if spare == nil || in.Leases < spare.Leases {
			spare = in
		}
		if r := mix(conversation ^ in.Gen*0x9e3779b97f4a7c15); conversation != 0 && in.Leases < share && (best == nil || r > rank) {
			best, rank = in, r
		}
	}
	if best != nil {
		return best
	}
	return spare
}

// mix is SplitMix64's finalizer (Steele, Lea, Flood, OOPSLA 2014): every bit of x changes half of the result's.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

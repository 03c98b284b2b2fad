package activator

import "time"

// Settings are the server-wide limits in force. They can be changed while running.
type Settings struct {
	MaxInstances int           // instances alive at a time, starting and draining ones included; default 10
	IdleTimeout  time.Duration // of models that name none; 0 = never retire; default 5 min
	StartTimeout time.Duration // of models that name none; default 5 min
	MaxWait      time.Duration // longest wait for room, and then for a slot, starts not counted; default 60 s
	Queue        int           // requests waiting for one model; default 1,000
	QueueTotal   int           // requests waiting altogether; default 10,000
	QueueClient  int           // requests of one client waiting for one model; 0 = no bound but the model's, the default

	QueueBytes       int64 // bodies waiting for one model; default 1 GiB
	QueueBytesTotal  int64 // bodies waiting altogether; default 4 GiB
	QueueBytesClient int64 // bodies of one client waiting for one model; 0 = no bound but the model's, the default

	KeepLast bool // the instance that was used last does not retire for being idle; default false
	Predict  bool // models are started ahead of requests that past ones make likely; default false
}

// DefaultSettings returns the limits of DESIGN §5.
func DefaultSettings() Settings {
	return Settings{
		MaxInstances: 10,
		IdleTimeout:  5 * time.Minute,
		StartTimeout: 5 * time.Minute,
		MaxWait:      time.Minute,
		Queue:        1_000,
		QueueTotal:   10_000,

		QueueBytes:      1 << 30,
		QueueBytesTotal: 4 << 30,
	}
}

// Back-off after failed starts of a model: doubled from the first to the last.
// LocalAI's cooldown has the same bounds (pkg/model/loader.go).
const (
	firstBackoff = 10 * time.Second
	lastBackoff  = 5 * time.Minute
)

// backoff is how long a model rests after its n-th failure in a row, n ≥ 1.
func backoff(n int) time.Duration {
	if n > 6 {
		return lastBackoff
	}
	return min(firstBackoff<<(n-1), lastBackoff)
}

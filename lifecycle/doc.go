// Package lifecycle is about instances: the states they go through, who is stopped
// to make room, and the work of starting, proving, watching and stopping an
// engine's process.
//
// Decisions are not made here: the activator decides, under its one lock, on the
// [Instance] values this package defines, and a [Runner] carries them out.
package lifecycle

// Package memory tells what a model needs, where it goes, and what was learnt of it.
//
// [Estimate] reads the need from what is declared, from the engine's own tool or from the file's header; [Combine] puts what was
// learnt into it; [Place] finds the devices and the number of layers on each; a [Learnt] keeps what was measured. Deciding is
// pure; only Estimate and Learnt touch files.
package memory

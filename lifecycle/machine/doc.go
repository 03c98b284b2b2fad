// Package machine tells what this machine has: memory and CPU that are really ours (control
// groups counted), the devices engines can use, and how hard pressed it all is.
//
// Nothing here is for the path of a request: a [Watch] looks in its own goroutine and hands
// out a [Sample].
package machine

// Package activator turns a request for a model into a [Lease] on an instance: at once
// when one is warm, after a cold start when none is, and with a typed [Error]
// when it cannot be.
//
// Every decision is made by one pure function, (*state).step, under one mutex that the
// warm path takes too. It does no slow work: it returns effects, which [Activator]
// hands to a [Runner], and whose results come back as events that carry the
// instance, and so its generation. A seeded simulation drives step on its own.
package activator

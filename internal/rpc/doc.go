// Package rpc serves the services of assistant.v1 by gRPC, gRPC-Web and Connect, with reflection and health. The .proto files, which
// document the services, are in proto; the code that is generated of them is in assistantv1. What the services do is done by those who
// implement [Services].
package rpc
